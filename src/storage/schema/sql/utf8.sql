create or replace function trunkline.utf8(field text, texts text[]) returns bytea[]
language plpgsql stable
as $$
begin
    if texts is null then
        return null;
    end if;
    -- What is built here has the right shape, whatever was given.
    perform trunkline.check_shape(field, texts, cardinality(texts));
    return array(
        select convert_to(item.text, 'UTF8')
        from unnest(texts) with ordinality as item (text, number) order by number);
end
$$;
comment on function trunkline.utf8 is 'Internal: texts as bytes';
revoke execute on function trunkline.utf8 from public;
