-- Take a slot of every level, or of none.
-- KEYS  the levels, sorted sets of lease ids by the time they lapse, microseconds
-- ARGV  1 lease id   2 time to live, microseconds   then limit and shadow ("1" or "0") of each level
-- Returns the index of the level that refuses, from 0; -1 if there is none and the lease is recorded, then how many leases
-- each level has by now.
local now, life = now_us(), tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  if ARGV[2 * i + 2] ~= '1' and redis.call('ZCARD', key) >= tonumber(ARGV[2 * i + 1]) then
    return { i - 1 }
  end
end
local reply = { -1 }
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, string.format('%.0f', now + life), ARGV[1])
  if redis.call('PTTL', key) < life / 1000 + 1000 then
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(life / 1000) + 2000))
  end
  reply[#reply + 1] = redis.call('ZCARD', key)
end
return reply
