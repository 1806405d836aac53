-- Consecutive messages of one producer are a run.
create or replace function trunkline.producer_runs(
    ids text[], register_for text[],
    out producers text[], out counts integer[], out registered_for text[]
)
language sql immutable
as $$
    select array_agg(id order by first), array_agg(count order by first),
           array_agg(owner order by first)
    from (
        select id, min(owner) as owner, count(*)::integer as count, min(number) as first
        from (
            select id, owner, number,
                   number - row_number() over (partition by id order by number) as run
            from unnest(ids, register_for) with ordinality as item (id, owner, number)
        ) numbered
        group by id, run
    ) runs
$$;
comment on function trunkline.producer_runs is 'Internal: the runs of consecutive messages of one producer';
revoke execute on function trunkline.producer_runs from public;
