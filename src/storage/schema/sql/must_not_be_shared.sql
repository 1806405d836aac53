-- A subscription's position moves as workers settle messages, and not by receiving or committing.
create or replace function trunkline.must_not_be_shared(
    topic text, registered trunkline.consumer_topic
) returns void
language plpgsql
as $$
begin
    if exists (
        select from trunkline.subscription s
        where s.topic_id = registered.topic_id and s.id = registered.id)
    then
        perform trunkline.refuse('CONSUMER_IS_SHARED', format(
            'consumer %s on topic %s is a subscription: workers share its messages, and no stream, pull or commit can take them',
            registered.consumer_id, topic),
            jsonb_build_object('topic', topic, 'consumer_id', registered.consumer_id));
    end if;
end
$$;
comment on function trunkline.must_not_be_shared is 'Internal: refuses a subscription where a consumer reads by itself';
revoke execute on function trunkline.must_not_be_shared from public;
