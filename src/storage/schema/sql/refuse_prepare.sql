-- A prepared transaction keeps its locks until somebody ends it, across restarts. Only the text of the
-- query says that a transaction is about to be prepared and not to be committed. Deferred triggers
-- call it at the end of the transaction, or earlier after `set constraints`.
create or replace function trunkline.refuse_prepare() returns void
language plpgsql
as $$
declare
    calls text;
begin
    if current_setting('max_prepared_transactions') = '0' then
        return;
    end if;
    -- The expression costs more than a publish, so it is left for queries with the word.
    if position('prepare' in lower(current_query())) > 0
       and current_query() ~* E'(^|;)(\\s|--[^\n]*\n|/\\*.*?\\*/)*prepare(\\s|--[^\n]*\n|/\\*.*?\\*/)+transaction\\M'
    then
        perform trunkline.refuse('CANNOT_PREPARE',
            'a transaction that publishes with publish or publish_at_commit cannot be prepared: the topic would stay locked until it ends',
            '{}');
    end if;
    -- At the end, there is this call, its statement and the trigger, and nothing around them. Elsewhere,
    -- what comes later is unknown: PostgreSQL prepares no transaction that notifies.
    get diagnostics calls = pg_context;
    if cardinality(string_to_array(calls, E'\n')) > 3 
       or position('constraints' in lower(current_query())) > 0
    then
        perform pg_notify('trunkline_nobody', '');
    end if;
end
$$;
comment on function trunkline.refuse_prepare is 'Internal: refuses PREPARE TRANSACTION';
revoke execute on function trunkline.refuse_prepare from public;
