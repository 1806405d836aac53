-- A prepared transaction keeps its locks until somebody ends it, across restarts. Only the text of the
-- query says that a transaction is about to be prepared and not to be committed.
create or replace function trunkline.refuse_prepare() returns void
language plpgsql stable
as $$
begin
    -- The expression costs more than a publish, so it is left for queries with the word.
    if current_setting('max_prepared_transactions') <> '0'
       and position('prepare' in lower(current_query())) > 0
       and current_query() ~* E'(^|;)(\\s|--[^\n]*\n|/\\*.*?\\*/)*prepare(\\s|--[^\n]*\n|/\\*.*?\\*/)+transaction\\M'
    then
        perform trunkline.refuse('CANNOT_PREPARE',
            'a transaction that publishes with publish or publish_at_commit cannot be prepared: the topic would stay locked until it ends',
            '{}');
    end if;
end
$$;
comment on function trunkline.refuse_prepare is 'Internal: refuses PREPARE TRANSACTION';
revoke execute on function trunkline.refuse_prepare from public;
