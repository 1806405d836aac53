create or replace function trunkline.register_producer(
    topic text, producer text, if_missing boolean default false
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    number integer;
    owner  text;
begin
    unlisten trunkline_nobody;
    perform trunkline.check_name('topic', topic);
    perform trunkline.check_name('producer', producer);
    perform trunkline.check_right(array['publish', 'admin'], topic);
    if starts_with(producer, 'sql.') and producer <> trunkline.own_producer() then
        -- It is the producer of another role, registered or not.
        perform trunkline.check_owner('producer', topic, producer, 'sql:' || substr(producer, 5));
    elsif producer = 'trunkline.dead-letters' then
        -- It is that of the brokers: what it published would pass for dead letters.
        perform trunkline.check_owner('producer', topic, producer, '');
    end if;
    -- The head first, as a publish locks it, against the deletion of the topic.
    select t.id into number
    from trunkline.topic t join trunkline.topic_head h on h.topic_id = t.id
    where t.name = register_producer.topic for key share of h;
    if number is null then
        perform trunkline.refuse_topic(topic);
    end if;
    if trunkline.add_producer(topic, number, producer,
        trunkline.new_owner())
    then
        perform trunkline.record_act('register_producer', topic, 'producer ' || producer);
        return true;
    end if;
    select p.owner into owner from trunkline.producer_topic p
    where p.topic_id = number and p.producer_id = producer;
    perform trunkline.check_owner('producer', topic, producer, owner);
    if not coalesce(if_missing, false) then
        perform trunkline.refuse('PRODUCER_EXISTS',
            format('producer %s is registered on topic %s already', producer, topic),
            jsonb_build_object('topic', topic, 'producer_id', producer));
    end if;
    return false;
end
$$;
comment on function trunkline.register_producer is 'Registers a producer on a topic; returns true, or false if it is registered already and if_missing permits that';
revoke execute on function trunkline.register_producer from public;
