-- Take slots of every level, or of none: one, or as many as are a share of what is free.
-- KEYS  the levels, sorted sets of lease ids by the time they lapse, microseconds
-- ARGV  1 time to live, microseconds   2 share: of so many free slots one may be taken ahead
--       then limit and shadow ("1" or "0") of each level, then the ids of the leases wanted
-- Returns the index of the level that refuses, from 0; -1 if there is none, then how many leases are recorded, the first
-- ids, then how many leases each level has by now.
local now, life, share = now_us(), tonumber(ARGV[1]), tonumber(ARGV[2])
local before = 2 + 2 * #KEYS
local given, free = #ARGV - before, math.huge
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  if ARGV[2 * i + 2] ~= '1' then
    free = math.min(free, tonumber(ARGV[2 * i + 1]) - redis.call('ZCARD', key))
    if free < 1 then
      return { i - 1 }
    end
  end
end
if free < math.huge then
  given = math.max(1, math.min(given, math.floor(free / share)))
end
local lapses, members = string.format('%.0f', now + life), {}
for i = 1, given do
  members[2 * i - 1], members[2 * i] = lapses, ARGV[before + i]
end
local reply = { -1, given }
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, unpack(members))
  if redis.call('PTTL', key) < life / 1000 + 1000 then
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(life / 1000) + 2000))
  end
  reply[#reply + 1] = redis.call('ZCARD', key)
end
return reply
