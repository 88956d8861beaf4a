-- Included by the scripts that read what is held.
-- held: tag -> "<fence> <length of the message> <length of its record> <list>"; record: '[message, exchange, key]'.
-- Give the message of a held record and its list; nothing if the record is not the one that was made with it: a stock
-- worker restored the message and another took it, and knew nothing of `held`.
local function message_of(own, record)
  local length, whole, list = string.match(own, '^%S+ (%d+) (%d+) (.*)$')
  if length and #record == tonumber(whole) and string.sub(record, 2 + length, 4 + length) == ', "' then
    return string.sub(record, 2, 1 + length), list
  end
end

