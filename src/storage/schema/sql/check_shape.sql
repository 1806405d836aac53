create or replace function trunkline.check_shape(
    field text, elements anyarray, count integer
) returns void
language plpgsql immutable
as $$
begin
    if elements is null or elements = '{}' and count = 0 then
        return;
    end if;
    if array_ndims(elements) <> 1 or array_lower(elements, 1) <> 1 then
        perform trunkline.refuse_field(field, 'must have one dimension that begins at 1');
    elsif cardinality(elements) <> count then
        perform trunkline.refuse_field(field,
            format('has %s element%s, and payloads has %s', cardinality(elements),
                case when cardinality(elements) <> 1 then 's' end, count));
    end if;
end
$$;
comment on function trunkline.check_shape is 'Internal: refuses an array that does not have one element for each message';
revoke execute on function trunkline.check_shape from public;
