-- Look at a piece of what was put aside, for messages that were on own queues of nodes.
-- KEYS  1 the list   2 sweep record   ARGV  1 entries seen before   2 entries to look at
-- Returns how many were looked at, then pairs of an entry and the boot that its node has now, or "". Nothing is looked at
-- while nodes are not judged, see beat.lua.
local time = redis.call('TIME')
if tonumber(time[1]) < tonumber(redis.call('HGET', KEYS[2], 'beat_from') or 0) then
  return { 0 }
end
local entries = redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)
local found = { #entries }
for _, entry in ipairs(entries) do
  local node = string.match(entry, '^gaia%.node%.([^\6\n]+)')
  if node then
    found[#found + 1] = entry
    found[#found + 1] = redis.call('HGET', 'gaia:node:' .. node, 'boot') or ''
  end
end
return found
