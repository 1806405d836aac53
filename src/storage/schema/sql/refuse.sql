-- Every error of the functions: its SQLSTATE, its values as an object in DETAIL, and a HINT. Messages
-- and reasons are those of gRPC.
create or replace function trunkline.refuse(
    reason text, message text, metadata jsonb
) returns void
language plpgsql
as $$
declare
    state text := case reason
        when 'INVALID_FIELD' then 'TL101'
        when 'TOPIC_NOT_FOUND' then 'TL102'
        when 'TOPIC_EXISTS' then 'TL103'
        when 'TOPIC_DIFFERS' then 'TL104'
        when 'PRODUCER_NOT_REGISTERED' then 'TL105'
        when 'PRODUCER_EXISTS' then 'TL106'
        when 'PRODUCER_FENCED' then 'TL107'
        when 'CONSUMER_NOT_FOUND' then 'TL108'
        when 'CONSUMER_EXISTS' then 'TL109'
        when 'OFFSET_OUT_OF_RANGE' then 'TL110'
        when 'LEASE_HELD' then 'TL111'
        when 'LEASE_LOST' then 'TL112'
        when 'COMMIT_BEHIND' then 'TL113'
        when 'COMMIT_BEYOND' then 'TL114'
        when 'NOT_GRANTED' then 'TL115'
        when 'NOT_OWNER' then 'TL116'
        when 'NO_OWNER' then 'TL117'
        when 'CANNOT_PREPARE' then 'TL118'
        when 'CONSUMER_IS_SHARED' then 'TL119'
        when 'TOPIC_BUSY' then 'serialization_failure'
        else 'internal_error'
    end;
    advice text := case reason
        when 'TOPIC_NOT_FOUND' then 'Create it with trunkline.create_topic, or grant the role a right on it.'
        when 'PRODUCER_NOT_REGISTERED' then 'Register it with trunkline.register_producer, or leave the producer out.'
        when 'PRODUCER_FENCED' then 'An instance that knows its epoch publishes over gRPC. Use another producer from SQL.'
        when 'CONSUMER_NOT_FOUND' then 'Register it with trunkline.register_consumer.'
        when 'TOPIC_BUSY' then 'Retry the transaction, or use trunkline.publish_later, which does not conflict.'
        when 'LEASE_HELD' then 'Retry once it is free, or register another consumer.'
        when 'LEASE_LOST' then 'Roll back: the consumer was taken over, or its position was sought.'
        when 'CANNOT_PREPARE' then 'Use trunkline.publish_later, which can be prepared.'
        when 'NOT_GRANTED' then 'An administrator grants it with: trunkline grant add PRINCIPAL OPERATION TOPIC'
        when 'NO_OWNER' then 'An administrator assigns it with: trunkline producer assign, or trunkline consumer assign'
    end;
begin
    if advice is null then
        raise exception using errcode = state, message = refuse.message,
            detail = jsonb_build_object('reason', reason) || metadata;
    end if;
    raise exception using errcode = state, message = refuse.message,
        detail = jsonb_build_object('reason', reason) || metadata, hint = advice;
end
$$;
comment on function trunkline.refuse is 'Internal: raises an error of Trunkline''s';
revoke execute on function trunkline.refuse from public;
