-- sendmail writes the address fields of a message anew when it sends it on, after it was signed: ",
-- " between two addresses, none of them empty, each with a domain. What it will write is what must
-- be signed. OpenDKIM runs this for each message, when it has all header fields (opendkim-lua(3),
-- "setup script").

local domain = "@SENDING_DOMAIN@"

-- The addresses of a field: text between the commas that are not in a quoted string, a comment or
-- angle brackets (RFC 5322 section 3.4), each with what is left of it without quoted strings and
-- comments; nil when one of these does not end, which sendmail would mend in its own way.
local function addresses(field)
    local list, text, bare, depth, quoted, angle = {}, "", "", 0, false, false
    local i = 1
    while i <= #field + 1 do
        local c = field:sub(i, i)
        local plain = depth == 0 and not quoted
        if c == "" or (c == "," and plain and not angle) then
            list[#list + 1] = {text = text:match("^%s*(.-)%s*$"), bare = bare}
            text, bare = "", ""
        else
            if c == "\\" and not plain then
                c = field:sub(i, i + 1)
                i = i + 1
            elseif c == '"' and depth == 0 then
                quoted = not quoted
            elseif c == "(" and not quoted then
                depth = depth + 1
            elseif c == ")" and depth > 0 and not quoted then
                depth = depth - 1
            elseif plain then
                if c == "<" or c == ">" then angle = c == "<" end
                bare = bare .. c
            end
            text = text .. c
        end
        i = i + 1
    end
    if quoted or angle or depth > 0 then return nil end
    return list
end

local function as_sendmail_writes(list)
    local written = {}
    for _, address in ipairs(list) do
        local text = address.text:gsub("<@[^:<>]*:", "<") -- without a source route
        if text ~= "" then
            if not address.bare:find("[@:;]") then
                local name, user = text:match("^(.*<)([^<>]+)>$")
                text = name and name .. user .. "@" .. domain .. ">" or text .. "@" .. domain
            end
            written[#written + 1] = text
        end
    end
    return table.concat(written, ", ")
end

local fields = {"From", "Reply-To", "To", "Cc", "Resent-From", "Resent-To", "Resent-Cc"}
for _, name in ipairs(fields) do
    local n = 0
    local field = odkim.get_header(ctx, name, n)
    while field ~= nil do
        local list = addresses(field)
        if list == nil then
            odkim.log(ctx, name .. ": has an unbalanced quote or bracket, refused")
            odkim.set_result(ctx, SMFIS_REJECT)
            return nil
        end
        odkim.replace_header(ctx, name, n, as_sendmail_writes(list))
        n = n + 1
        field = odkim.get_header(ctx, name, n)
    end
end
return nil
