-- sendmail writes the address fields of a message anew when it sends it on, after it was signed: exactly ", "
-- between two addresses. What it will write is what must be signed. OpenDKIM runs this for each message, when it
-- has all header fields (opendkim-lua(3), "setup script").

-- Splits a field into single characters, quoted strings and comments (RFC 5322 section 3.2), and returns them as a list.
local function tokens(field)
    local list, i = {}, 1
    while i <= #field do
        local c = field:sub(i, i)
        local start, depth = i, 0
        if c == '"' or c == "(" then
            repeat
                local d = field:sub(i, i)
                if d == "\\" then
                    i = i + 1
                elseif c == '"' then
                    depth = (d ~= '"' or i == start) and 1 or 0
                elseif d == "(" then
                    depth = depth + 1
                elseif d == ")" then
                    depth = depth - 1
                end
                i = i + 1
            until depth == 0 or i > #field
        else
            i = i + 1
        end
        list[#list + 1] = field:sub(start, i - 1)
    end
    return list
end

local function as_sendmail_writes(field)
    local written = ""
    for _, token in ipairs(tokens(field)) do
        if token == "," then
            written = written:gsub("%s+$", "") .. ", "
        elseif not (token:find("^%s$") and written:find(", $")) then
            written = written .. token
        end
    end
    return written
end

for _, name in ipairs({"To", "Cc", "Reply-To", "Resent-To", "Resent-Cc"}) do
    local n = 0
    local field = odkim.get_header(ctx, name, n)
    while field ~= nil do
        odkim.replace_header(ctx, name, n, as_sendmail_writes(field))
        n = n + 1
        field = odkim.get_header(ctx, name, n)
    end
end
return nil
