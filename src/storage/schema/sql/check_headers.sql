-- Returns the bytes of all names and values. They count in UTF-8, whatever the database's encoding.
create or replace function trunkline.check_headers(field text, headers jsonb) returns integer
language plpgsql stable
as $$
declare
    entries  bigint;
    total    bigint;
    longest  bigint;
    nameless boolean;
    other    text;
begin
    if jsonb_typeof(headers) <> 'object' then
        perform trunkline.refuse_field(field, format('is %s, and must be an object of strings',
            case jsonb_typeof(headers) when 'null' then 'null' when 'array' then 'an array'
                 else 'a ' || jsonb_typeof(headers) end));
    end if;
    select count(*), sum(octet_length(convert_to(name, 'UTF8')) + octet_length(convert_to(value #>> '{}', 'UTF8'))),
           max(octet_length(convert_to(name, 'UTF8'))), bool_or(name = ''),
           min(name) filter (where jsonb_typeof(value) <> 'string')
    into entries, total, longest, nameless, other
    from jsonb_each(headers) as entry (name, value);
    if entries > 64 then
        perform trunkline.refuse_field(field, format('is %s entries, and the limit is 64', entries), 64);
    elsif other is not null then
        perform trunkline.refuse_field(field,
            format('holds %s, which is not a string', to_json(left(other, 255))));
    elsif nameless then
        perform trunkline.refuse_field(field, 'holds an empty name');
    elsif longest > 255 then
        perform trunkline.refuse_field(field || '.name', format('is %s bytes, and the limit is 255', longest), 255);
    elsif total > 16384 then
        perform trunkline.refuse_field(field, format('is %s bytes, and the limit is 16384', total), 16384);
    end if;
    return coalesce(total, 0);
end
$$;
comment on function trunkline.check_headers is 'Internal: refuses headers that are no object of strings or exceed a limit; returns their size';
revoke execute on function trunkline.check_headers from public;
