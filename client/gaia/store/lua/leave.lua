-- A worker says that it goes: its node is not alive any more, and what lies on its own queue is orphaned.
-- KEYS  1 its heartbeat   2 nodes   ARGV  1 escaped node   2 boot   3 most messages to take
-- Returns orphans that are to be answered, as pairs of SHA-1 and message; none if another boot has the node by now.
local boot = redis.call('HGET', KEYS[1], 'boot')
if boot and boot ~= ARGV[2] then
  return {}
end
redis.call('DEL', KEYS[1])
-- What comes back to its queue later is swept by others.
if orphan(ARGV[1], tonumber(ARGV[3])) == 0 then
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
else
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return orphans()
