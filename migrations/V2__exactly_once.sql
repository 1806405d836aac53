-- What makes a repeated publish harmless: each producer's count of its messages, and a fence.

alter table trunkline.producer_topic
    add column epoch            bigint not null default 0,
    add column last_sequence    bigint,
    add column recent_sequences bigint[],
    add column recent_offsets   bigint[];
comment on column trunkline.producer_topic.epoch is 'How often the producer was fenced; a publish of an older epoch is refused';
comment on column trunkline.producer_topic.last_sequence is 'Sequence of the last message published with one; null if none was';
comment on column trunkline.producer_topic.recent_sequences is 'First sequences of the last runs of messages that were stored together, the newest first: what answers a repeated publish';
comment on column trunkline.producer_topic.recent_offsets is 'Offsets of the first message of each of those runs';

-- A statement that has begun to write finds that what it read has changed: it must leave nothing.
create function trunkline.changed_meanwhile() returns bigint
language plpgsql volatile
as $$
begin
    raise exception 'changed meanwhile' using errcode = 'TL001';
end
$$;
comment on function trunkline.changed_meanwhile is 'Ends a publish whose producer changed between its check and its lock; it is tried again';
