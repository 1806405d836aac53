create or replace function trunkline.enqueue_all(
    topic text, payloads bytea[], keys bytea[], headers jsonb[], producer text
) returns void
language plpgsql
as $$
declare
    checked record := trunkline.check_messages(payloads, keys, headers);
begin
    perform trunkline.enqueue_messages(topic, payloads, keys, headers, checked.sizes, producer);
end
$$;
comment on function trunkline.enqueue_all is 'Internal: puts many messages into the outbox';
revoke execute on function trunkline.enqueue_all from public;
