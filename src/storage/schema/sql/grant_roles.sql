-- Gives the roles for applications what they need, where they exist: again with each version, as it may
-- have more functions. Which topics they may use is a matter of grants.
create or replace function trunkline.grant_roles() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted record;
begin
    for wanted in
        select rolname, functions
        from (values
            ('trunkline_publisher', array['publish', 'publish_many', 'publish_at_commit',
                'publish_later', 'publish_later_many', 'create_topic', 'register_producer',
                'topic_info']),
            ('trunkline_consumer', array['register_consumer', 'receive', 'commit_position', 'seek',
                'topic_info', 'consumer_info']),
            ('trunkline_reader', array['topic_info', 'consumer_info'])
        ) as role (name, functions)
        join pg_roles on rolname = role.name
    loop
        execute format('grant usage on schema trunkline to %I', wanted.rolname);
        execute (
            select string_agg(format('grant execute on function %s to %I', p.oid::regprocedure,
                                     wanted.rolname), '; ')
            from pg_proc p
            where p.pronamespace = 'trunkline'::regnamespace and p.proname = any (wanted.functions));
        if wanted.rolname <> 'trunkline_publisher' then
            execute format('grant select on trunkline.message, trunkline.topics,
                trunkline.consumers, trunkline.producers, trunkline.readable_topic,
                trunkline.readable_batch to %I', wanted.rolname);
        end if;
    end loop;
end
$$;
comment on function trunkline.grant_roles is 'Grants trunkline_publisher, trunkline_consumer and trunkline_reader the functions and views that they need, where these roles exist';
revoke execute on function trunkline.grant_roles from public;

select trunkline.grant_roles();
