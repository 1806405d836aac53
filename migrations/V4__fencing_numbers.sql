-- A number that fences must never come again, also when what it belonged to was forgotten: whoever
-- still holds the old number would be taken for the new registration.

create table trunkline.fence (
    only_row       boolean primary key default true check (only_row),
    consumer_epoch bigint not null default 0,
    producer_epoch bigint not null default 0
);
insert into trunkline.fence (consumer_epoch, producer_epoch)
select coalesce((select max(epoch) + 1 from trunkline.consumer_topic where epoch > 0), 0),
       coalesce((select max(epoch) + 1 from trunkline.producer_topic
                 where epoch > 0 or last_sequence is not null), 0);
comment on table trunkline.fence is 'One row: new registrations begin at these epochs, so that none of a forgotten registration comes again';
comment on column trunkline.fence.only_row is 'Keeps the table to one row';
comment on column trunkline.fence.consumer_epoch is 'More than the epoch of any consumer that was unregistered or deleted with its topic; 0 if there was none';
comment on column trunkline.fence.producer_epoch is 'More than the epoch of any producer that was unregistered or deleted with its topic, and had used epochs or sequences; 0 if there was none';

-- A producer that never fenced has epoch 0, and so has its next registration, unless it is known
-- that the one before used sequences.
create table trunkline.forgotten_producer (
    topic        text collate "C" not null,
    producer_id  text collate "C" not null,
    forgotten_at timestamptz not null default now(),
    primary key (topic, producer_id)
);
create index forgotten_producer_age on trunkline.forgotten_producer (forgotten_at);
comment on table trunkline.forgotten_producer is 'Producers that used epochs or sequences and are registered no more, for a week: registered anew, they begin at a new epoch';
comment on column trunkline.forgotten_producer.topic is 'Name of the topic, which may have been deleted since';
comment on column trunkline.forgotten_producer.producer_id is 'Id of the producer';
comment on column trunkline.forgotten_producer.forgotten_at is 'When it was unregistered, or deleted with its topic';
