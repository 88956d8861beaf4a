-- Hold a lease for another time to live.
-- KEYS  its levels   ARGV  1 lease id   2 time to live, microseconds
-- Returns the index of the level where it is not held any more, from 0; -1 if it is held everywhere.
local now, life = now_us(), tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
  local lapses = redis.call('ZSCORE', key, ARGV[1])
  if not lapses or tonumber(lapses) <= now then
    return i - 1
  end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, 'XX', string.format('%.0f', now + life), ARGV[1])
  if redis.call('PTTL', key) < life / 1000 + 1000 then
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(life / 1000) + 2000))
  end
end
return -1
