-- What SQL needs to publish: which functions are installed, messages that wait for their commit, and
-- messages that wait for a broker to move them into the log.

-- The functions themselves are in files of their own and are installed again when they change.
create table trunkline.installed_functions (
    only_row boolean primary key default true check (only_row),
    version  integer not null,
    checksum text not null
);
comment on table trunkline.installed_functions is 'One row: which functions of Trunkline are installed in this schema';
comment on column trunkline.installed_functions.only_row is 'Keeps the table to one row';
comment on column trunkline.installed_functions.version is 'Number of their version; an older broker leaves newer functions alone';
comment on column trunkline.installed_functions.checksum is 'SHA-256 of their text';

alter table trunkline.topic_head add column notified_at timestamptz;
comment on column trunkline.topic_head.notified_at is 'When a publish from SQL last woke brokers; null if none has';

-- Rows live within one transaction, so nothing of them must survive a crash.
create unlogged table trunkline.staged_message (
    transaction  xid8 not null,
    number       bigint generated always as identity,
    topic_id     integer not null,
    topic        text collate "C" not null,
    producer_id  text collate "C" not null,
    register_for text collate "C",
    key          bytea,
    headers      jsonb,
    payload      bytea not null,
    bytes        integer not null,
    primary key (transaction, number)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table trunkline.staged_message is 'Messages of publish_at_commit whose transactions have not committed yet';
comment on column trunkline.staged_message.transaction is 'The transaction that publishes it';
comment on column trunkline.staged_message.number is 'Orders the messages of a transaction';
comment on column trunkline.staged_message.topic_id is 'The topic';
comment on column trunkline.staged_message.topic is 'The topic''s name when the message was published';
comment on column trunkline.staged_message.producer_id is 'Who publishes it';
comment on column trunkline.staged_message.register_for is 'The owner for whom the producer is registered if it is missing, empty for nobody; null if it must be registered';
comment on column trunkline.staged_message.key is 'The key, or null';
comment on column trunkline.staged_message.headers is 'The headers, or null';
comment on column trunkline.staged_message.payload is 'The payload';
comment on column trunkline.staged_message.bytes is 'Bytes of payload, key and headers';

create unlogged table trunkline.direct_publish (
    transaction xid8 primary key
);
comment on table trunkline.direct_publish is 'Transactions that have published and not ended yet, where transactions can be prepared: their end is checked';
comment on column trunkline.direct_publish.transaction is 'The transaction';

-- No foreign key: it would lock the topic's row for each message.
create table trunkline.outbox (
    transaction  xid8 not null,
    id           bigint generated always as identity primary key,
    topic_id     integer not null,
    producer_id  text collate "C" not null,
    register_for text collate "C",
    key          bytea,
    headers      jsonb,
    payload      bytea not null,
    bytes        integer not null,
    published_at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
create index outbox_by_transaction on trunkline.outbox (transaction, id);
comment on table trunkline.outbox is 'Messages of publish_later: a broker moves those of committed transactions into the log';
comment on column trunkline.outbox.transaction is 'The transaction that published it';
comment on column trunkline.outbox.id is 'Orders the messages: grows with each';
comment on column trunkline.outbox.topic_id is 'The topic';
comment on column trunkline.outbox.producer_id is 'Who publishes it';
comment on column trunkline.outbox.register_for is 'The owner for whom the producer is registered if it is missing, empty for nobody; null if it must be registered';
comment on column trunkline.outbox.key is 'The key, or null';
comment on column trunkline.outbox.headers is 'The headers, or null';
comment on column trunkline.outbox.payload is 'The payload';
comment on column trunkline.outbox.bytes is 'Bytes of payload, key and headers';
comment on column trunkline.outbox.published_at is 'When publish_later was called; the message''s own time is that of its move into the log';

create table trunkline.outbox_watch (
    only_row     boolean primary key default true check (only_row),
    polled_until timestamptz not null default '-infinity'
) with (fillfactor = 10);
insert into trunkline.outbox_watch default values;
comment on table trunkline.outbox_watch is 'One row: whether a broker polls the outbox quickly, so that nobody needs to wake it';
comment on column trunkline.outbox_watch.only_row is 'Keeps the table to one row';
comment on column trunkline.outbox_watch.polled_until is 'Until when a broker polls the outbox every few milliseconds';

-- A broker that takes over goes on from there. Otherwise it would walk over all rows that were moved and
-- wait for a vacuum.
create table trunkline.outbox_pass (
    only_row         boolean primary key default true check (only_row),
    snapshot         text,
    newest_id        bigint,
    next_transaction bigint,
    noted_in         xid8
) with (fillfactor = 10);
insert into trunkline.outbox_pass default values;
comment on table trunkline.outbox_pass is 'One row: a moment up to which all messages of the outbox have been moved';
comment on column trunkline.outbox_pass.only_row is 'Keeps the table to one row';
comment on column trunkline.outbox_pass.snapshot is 'All messages that are visible in this snapshot have been moved; null if no such snapshot is known';
comment on column trunkline.outbox_pass.newest_id is 'The newest id that had been given out by then';
comment on column trunkline.outbox_pass.next_transaction is 'The number of the next transaction then';
comment on column trunkline.outbox_pass.noted_in is 'The transaction that wrote the row. A row that another one has written was restored from a dump, and says nothing of this server';

-- lz4 where this server was built with it, as for batches.
do $$
begin
    alter table trunkline.outbox alter column payload set compression lz4;
    alter table trunkline.staged_message alter column payload set compression lz4;
exception when feature_not_supported or invalid_parameter_value then
    null;
end
$$;
