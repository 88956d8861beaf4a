-- Find the message of a call among those that wait on a list, a piece at a time, from the end that is fetched next.
-- KEYS  1 list   ARGV  1 the call's id, as JSON   2 entries seen before   3 entries to look at
-- Returns the entry, or how many entries were looked at: 0 behind the last.
local entries = redis.call('LRANGE', KEYS[1], -ARGV[2] - ARGV[3], -ARGV[2] - 1)
local spaced, compact = '"id": ' .. ARGV[1], '"id":' .. ARGV[1]
for _, entry in ipairs(entries) do
  if string.find(entry, spaced, 1, true) or string.find(entry, compact, 1, true) then
    return entry
  end
end
return #entries
