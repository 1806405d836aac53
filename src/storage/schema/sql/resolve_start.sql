-- The offset that arguments name: an offset, a time, or an end of the log.
create or replace function trunkline.resolve_start(
    topic text, topic_id integer, "offset" bigint, "time" timestamptz, latest boolean
) returns bigint
language plpgsql
as $$
declare
    first bigint;
    head  bigint;
begin
    if num_nonnulls("offset", "time", nullif(latest, false)) > 1 then
        perform trunkline.refuse_field('latest', 'names a place, and so does another argument');
    end if;
    -- Against retention, and not against publishes.
    select h.first_offset, h.next_offset into first, head
    from trunkline.topic_head h where h.topic_id = resolve_start.topic_id for key share;
    if first is null then
        perform trunkline.refuse_topic(topic);
    end if;
    if "offset" < 0 then
        perform trunkline.refuse_field('offset', 'must not be negative');
    elsif "offset" < first or "offset" > head then
        perform trunkline.refuse('OFFSET_OUT_OF_RANGE', format(
            'offset %s lies outside of topic %s, which runs from %s to %s',
            "offset", topic, first, head),
            jsonb_build_object('topic', topic, 'offset', "offset"::text,
                               'first_offset', first::text, 'head', head::text));
    end if;
    return case when "offset" is not null then "offset"
                when "time" is not null then greatest(trunkline.offset_at(topic, "time"), first)
                when latest then head
                else first end;
end
$$;
comment on function trunkline.resolve_start is 'Internal: the offset that an offset, a time, or an end of the log names';
revoke execute on function trunkline.resolve_start from public;
