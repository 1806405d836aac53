-- Who may publish to which topic, as which producer. Without a producer, it is one of the session's
-- role, which is registered with its first message.
create or replace function trunkline.check_publisher(
    topic text, producer text,
    out topic_id integer, out producer_id text, out register_for text
)
language plpgsql stable
as $$
declare
    unlimited boolean;
    owner     text;
    epoch     bigint;
begin
    producer_id := coalesce(producer, trunkline.own_producer());
    select t.id, p.owner, p.epoch, trunkline.is_unlimited(),
           case when producer is null then coalesce(trunkline.new_owner(), '') end
    into topic_id, owner, epoch, unlimited, register_for
    from trunkline.topic t
    left join trunkline.producer_topic p
        on p.topic_id = t.id and p.producer_id = check_publisher.producer_id
    where t.name = check_publisher.topic;
    if unlimited and (epoch = 0 or epoch is null and producer is null) then
        return;
    end if;
    if topic is not null then
        perform trunkline.check_right(array['publish'], topic);
    end if;
    if topic_id is null then
        perform trunkline.refuse_topic(topic);
    elsif epoch is null then
        if producer is not null then
            perform trunkline.check_name('producer', producer);
            perform trunkline.refuse_producer(topic, topic_id, producer);
        end if;
    else
        perform trunkline.check_owner('producer', topic, producer_id, owner);
        if epoch <> 0 then
            perform trunkline.refuse_producer(topic, topic_id, producer_id);
        end if;
    end if;
end
$$;
comment on function trunkline.check_publisher is 'Internal: refuses who may not publish to a topic as a producer';
revoke execute on function trunkline.check_publisher from public;
