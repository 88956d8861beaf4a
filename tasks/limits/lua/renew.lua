-- Hold leases of the same levels for another time to live.
-- KEYS  their levels   ARGV  1 time to live, microseconds   then the ids of the leases
-- Returns for each lease the index of the level where it is not held any more, from 0, -1 if it is held everywhere and
-- renewed; then how many leases each level has.
local now, life = now_us(), tonumber(ARGV[1])
local lapses, reply, renewed = string.format('%.0f', now + life), {}, {}
for i = 2, #ARGV do
  local lost = -1
  for j, key in ipairs(KEYS) do
    local ends = redis.call('ZSCORE', key, ARGV[i])
    if lost < 0 and (not ends or tonumber(ends) <= now) then
      lost = j - 1
    end
  end
  reply[i - 1] = lost
  if lost < 0 then
    renewed[#renewed + 1], renewed[#renewed + 2] = lapses, ARGV[i]
  end
end
for _, key in ipairs(KEYS) do
  if #renewed > 0 then
    redis.call('ZADD', key, 'XX', unpack(renewed))
    if redis.call('PTTL', key) < life / 1000 + 1000 then
      redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(life / 1000) + 2000))
    end
  end
  reply[#reply + 1] = redis.call('ZCOUNT', key, '(' .. string.format('%.0f', now), '+inf')
end
return reply
