create or replace function trunkline.check_name(field text, name text) returns void
language plpgsql stable
as $$
declare
    bytes bigint := octet_length(name);
    bad   text;
begin
    if name is null then
        perform trunkline.refuse_field(field, 'must not be null');
    elsif name = '' then
        perform trunkline.refuse_field(field, 'must not be empty');
    elsif bytes > 255 then
        perform trunkline.refuse_field(field, format('is %s bytes, and the limit is 255', bytes), 255);
    elsif name ~ '[^A-Za-z0-9._-]' then
        bad := substring(name from '[^A-Za-z0-9._-]');
        perform trunkline.refuse_field(field,
            format('holds ''%s'', and only A-Z a-z 0-9 . _ - are allowed', case
                when bad in (chr(92), '''') then chr(92) || bad
                when bad = chr(9) then chr(92) || 't'
                when bad = chr(10) then chr(92) || 'n'
                when bad = chr(13) then chr(92) || 'r'
                when ascii(bad) < 32 or ascii(bad) = 127 then chr(92) || format('u{%s}', to_hex(ascii(bad)))
                else bad end));
    elsif name in ('.', '..') then
        perform trunkline.refuse_field(field, 'must not be "." or ".."');
    end if;
end
$$;
comment on function trunkline.check_name is 'Internal: refuses what cannot be the name of a topic, a producer or a consumer';
revoke execute on function trunkline.check_name from public;
