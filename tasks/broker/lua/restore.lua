-- Give messages of dead holders back to their lists, to be fetched next, and count the lost lease by the call's id.
-- KEYS  1 unacked   2 unacked_index   3 held   4 sweep record
-- ARGV  1 lease, seconds   2 most messages   3 seconds to keep a count
--
-- Leases are judged by the server's clock, and cannot be renewed while the server is away. So a sweep that finds no
-- recent sweep before it waits one lease first: whoever lives has renewed by then.
-- Messages of stock workers have no record in `held` and are left to kombu's own visibility timeout.
--
-- Returns how many were restored.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local lease, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local record = redis.call('HMGET', KEYS[4], 'at', 'from')
local from = tonumber(record[2] or 0)
if not record[1] or now - tonumber(record[1]) > lease / 2 then
  from = now + lease
end
redis.call('HSET', KEYS[4], 'at', string.format('%.6f', now), 'from', string.format('%.6f', from))
if now < from then
  return 0
end
local restored, offset = 0, 0
while restored < most do
  local tags = redis.call('ZRANGE', KEYS[2], '-inf', string.format('%.6f', now - lease), 'BYSCORE', 'LIMIT', offset, 100)
  if #tags == 0 then
    break
  end
  for _, tag in ipairs(tags) do
    local _, length, list = string.match(redis.call('HGET', KEYS[3], tag) or '', '^(%S+) (%d+) (.*)$')
    local held = redis.call('HGET', KEYS[1], tag)
    if length and held then
      local message = string.sub(held, 2, 1 + tonumber(length))
      push('RPUSH', list, message)
      local id = id_of(message)
      if id then
        redis.call('INCR', 'gaia:lost:' .. id)
        redis.call('EXPIRE', 'gaia:lost:' .. id, ARGV[3])
      end
      redis.call('ZREM', KEYS[2], tag)
      redis.call('HDEL', KEYS[1], tag)
      redis.call('HDEL', KEYS[3], tag)
      restored = restored + 1
    elseif length then
      -- A record without a message: nothing can be restored from it.
      redis.call('ZREM', KEYS[2], tag)
      redis.call('HDEL', KEYS[3], tag)
    else
      offset = offset + 1
    end
  end
end
return restored
