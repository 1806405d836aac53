create or replace function trunkline.refuse_producer(
    topic text, topic_id integer, producer text
) returns void
language plpgsql
as $$
declare
    epoch    bigint;
    metadata jsonb := jsonb_build_object('topic', topic, 'producer_id', producer);
begin
    select p.epoch into epoch from trunkline.producer_topic p
    where p.topic_id = refuse_producer.topic_id and p.producer_id = producer;
    if epoch is null then
        perform trunkline.refuse('PRODUCER_NOT_REGISTERED', format(
            'producer %s may not publish to topic %s: it is not registered there', producer, topic),
            metadata);
    end if;
    perform trunkline.refuse('PRODUCER_FENCED', format(
        'producer %s with epoch 0 has been fenced on topic %s: its epoch is %s',
        producer, topic, epoch),
        metadata || jsonb_build_object('epoch', '0', 'current_epoch', epoch::text));
end
$$;
comment on function trunkline.refuse_producer is 'Internal: says why a producer may not publish';
revoke execute on function trunkline.refuse_producer from public;
