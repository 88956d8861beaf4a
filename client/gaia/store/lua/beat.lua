-- A worker says that it lives, and sweeps the own queues of nodes that do not.
-- KEYS  1 its heartbeat   2 nodes   3 sweep record
-- ARGV  1 escaped node   2 seconds to live   3 most messages to take   4 boot   5 1 at its first beat, else 0
--       6 a boot that has ended, so that this one may take its place, or ""   then pairs of a field and its value
--
-- Two processes under one name would take each other's calls, so the one that has it keeps it.
--
-- Nodes are judged by the server's clock, and cannot beat while the server is away. So a beat that finds no recent beat
-- before it waits one life first: whoever lives has beaten by then.
--
-- Returns orphans that are to be answered, as pairs of SHA-1 and message; 0 if another boot has the name, and nothing
-- was done.
local holder = redis.call('HGET', KEYS[1], 'boot')
if holder and holder ~= ARGV[4] and holder ~= ARGV[6] then
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local life, most = tonumber(ARGV[2]), tonumber(ARGV[3])

redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'seen_at', string.format('%.6f', now), unpack(ARGV, 7))
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.6f', now), ARGV[1])

if ARGV[5] == '1' then
  -- What lies on its queue by now is for earlier boots.
  most = orphan(ARGV[1], most)
end

local record = redis.call('HMGET', KEYS[3], 'beat', 'beat_from')
local from = tonumber(record[2] or 0)
if not record[1] or now - tonumber(record[1]) > life / 2 then
  from = now + life
end
redis.call('HSET', KEYS[3], 'beat', string.format('%.6f', now), 'beat_from', string.format('%.6f', from))
if now >= from and most > 0 then
  local silent = string.format('%.6f', now - life)
  for _, node in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', silent, 'BYSCORE', 'LIMIT', 0, 100)) do
    if redis.call('EXISTS', 'gaia:node:' .. node) == 0 then
      most = orphan(node, most)
      if most == 0 then
        break
      end
      redis.call('ZREM', KEYS[2], node)
    end
  end
end
return orphans()
