create or replace function trunkline.refuse_field(
    field text, problem text, "limit" bigint default null
) returns void
language plpgsql
as $$
begin
    perform trunkline.refuse('INVALID_FIELD', format('%s: %s', field, problem),
        jsonb_strip_nulls(jsonb_build_object('field', field, 'limit', "limit"::text)));
end
$$;
comment on function trunkline.refuse_field is 'Internal: refuses a value of an argument';
revoke execute on function trunkline.refuse_field from public;
