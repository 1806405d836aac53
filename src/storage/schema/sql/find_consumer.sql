-- The registration of a consumer that the session's role may use.
create or replace function trunkline.find_consumer(
    operations text[], topic text, consumer text, is_own boolean default true
) returns trunkline.consumer_topic
language plpgsql
as $$
declare
    number     integer;
    registered trunkline.consumer_topic;
begin
    perform trunkline.check_name('topic', topic);
    perform trunkline.check_name('consumer', consumer);
    perform trunkline.check_right(operations, topic);
    select t.id into number from trunkline.topic t where t.name = find_consumer.topic;
    if number is null then
        perform trunkline.refuse_topic(topic);
    end if;
    select * into registered from trunkline.consumer_topic c
    where c.topic_id = number and c.consumer_id = consumer;
    if not found then
        perform trunkline.refuse('CONSUMER_NOT_FOUND',
            format('consumer %s is not registered on topic %s', consumer, topic),
            jsonb_build_object('topic', topic, 'consumer_id', consumer));
    end if;
    if is_own then
        perform trunkline.check_owner('consumer', topic, consumer, registered.owner);
    end if;
    return registered;
end
$$;
comment on function trunkline.find_consumer is 'Internal: a consumer that the session''s role may use';
revoke execute on function trunkline.find_consumer from public;
