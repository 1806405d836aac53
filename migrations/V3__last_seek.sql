-- A client that comes back after a break must know whether its position was sought meanwhile.
alter table trunkline.consumer_topic
    add column seek_epoch bigint not null default 0;
comment on column trunkline.consumer_topic.seek_epoch is 'The epoch that the last seek began; 0 if there was none';
