-- Who may do what: tokens, grants, and owners of registrations.

create table trunkline.access_token (
    id           text collate "C" primary key,
    principal    text collate "C" not null,
    hash         bytea not null unique,
    description  text not null default '',
    valid_for_ms bigint,
    created_at   timestamptz not null default now(),
    created_by   text collate "C" not null default '',
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
comment on table trunkline.access_token is 'Tokens, which prove who calls';
comment on column trunkline.access_token.id is 'The part of the token that may be shown';
comment on column trunkline.access_token.principal is 'Who the token stands for';
comment on column trunkline.access_token.hash is 'SHA-256 of the whole token, which is stored nowhere';
comment on column trunkline.access_token.description is 'What the token is for';
comment on column trunkline.access_token.valid_for_ms is 'How long the token was meant to be valid, in milliseconds; null for ever';
comment on column trunkline.access_token.created_at is 'When it was created';
comment on column trunkline.access_token.created_by is 'The principal that created it; empty if the broker did not authenticate';
comment on column trunkline.access_token.expires_at is 'When it expires; null if it does not';
comment on column trunkline.access_token.revoked_at is 'When it was revoked; null if it was not';
comment on column trunkline.access_token.last_used_at is 'When it was last used, to the minute; null if it never was';

create table trunkline.access_grant (
    principal  text collate "C" not null,
    operation  text collate "C" not null
               check (operation in ('admin', 'publish', 'consume', 'read')),
    topics     text collate "C" not null,
    created_at timestamptz not null default now(),
    created_by text collate "C" not null default '',
    primary key (principal, operation, topics)
);
comment on table trunkline.access_grant is 'Grants, which say what a principal may do';
comment on column trunkline.access_grant.principal is 'Who has the grant';
comment on column trunkline.access_grant.operation is 'What it permits: admin, publish, consume or read';
comment on column trunkline.access_grant.topics is 'Where: a name, or a prefix that ends in an asterisk';
comment on column trunkline.access_grant.created_at is 'When it was added';
comment on column trunkline.access_grant.created_by is 'The principal that added it; empty if the broker did not authenticate';

alter table trunkline.producer_topic add column owner text collate "C";
comment on column trunkline.producer_topic.owner is 'The principal that the producer belongs to; null if it belongs to nobody';
alter table trunkline.consumer_topic add column owner text collate "C";
comment on column trunkline.consumer_topic.owner is 'The principal that the consumer belongs to; null if it belongs to nobody';

-- Brokers keep copies of tokens, grants and owners. They poll this row to learn that their copies are
-- out of date.
create table trunkline.access_version (
    only_row          boolean primary key default true check (only_row),
    version           bigint not null default 1,
    owner_version     bigint not null default 1,
    changed_at        timestamptz not null default now(),
    owners_changed_in bigint
);
insert into trunkline.access_version default values;
comment on table trunkline.access_version is 'One row: which state of tokens, grants and owners is the current one';
comment on column trunkline.access_version.only_row is 'Keeps the table to one row';
comment on column trunkline.access_version.version is 'Grows with each change of a token, a grant or an owner';
comment on column trunkline.access_version.owner_version is 'The version that the last change of an owner began';
comment on column trunkline.access_version.changed_at is 'When it grew: tells versions apart that a fail-over lost from those that follow it';
comment on column trunkline.access_version.owners_changed_in is 'The transaction that last changed an owner';

-- Runs as its owner, so that only these triggers change the version.
create function trunkline.raise_access_version() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_argv[0] = 'owners' then
        -- Once for all registrations of a topic that is deleted.
        update trunkline.access_version
        set version = version + 1, owner_version = version + 1,
            changed_at = clock_timestamp(), owners_changed_in = txid_current()
        where owners_changed_in is distinct from txid_current();
    else
        update trunkline.access_version
        set version = version + 1, changed_at = clock_timestamp();
    end if;
    return null;
end
$$;
comment on function trunkline.raise_access_version is 'Tells brokers that tokens, grants or owners have changed';
revoke execute on function trunkline.raise_access_version() from public;

-- Deferred to the commit: the version's row is then the last one that a transaction locks, so that
-- two of them cannot wait for each other.
create constraint trigger token_changed
after insert or delete on trunkline.access_token deferrable initially deferred
for each row execute function trunkline.raise_access_version('tokens');

-- Not for the time of last use, nor for a token that is revoked once more.
create constraint trigger token_ended
after update on trunkline.access_token deferrable initially deferred
for each row when (
    (old.id, old.principal, old.hash, old.expires_at, old.revoked_at)
    is distinct from (new.id, new.principal, new.hash, new.expires_at, new.revoked_at))
execute function trunkline.raise_access_version('tokens');

create constraint trigger grant_changed
after insert or delete or update on trunkline.access_grant deferrable initially deferred
for each row execute function trunkline.raise_access_version('grants');

create constraint trigger owner_changed
after update of owner on trunkline.producer_topic deferrable initially deferred
for each row when (old.owner is distinct from new.owner)
execute function trunkline.raise_access_version('owners');

create constraint trigger owned_deleted
after delete on trunkline.producer_topic deferrable initially deferred
for each row when (old.owner is not null)
execute function trunkline.raise_access_version('owners');

create constraint trigger owner_changed
after update of owner on trunkline.consumer_topic deferrable initially deferred
for each row when (old.owner is distinct from new.owner)
execute function trunkline.raise_access_version('owners');

create constraint trigger owned_deleted
after delete on trunkline.consumer_topic deferrable initially deferred
for each row when (old.owner is not null)
execute function trunkline.raise_access_version('owners');
