-- Give messages of dead holders back to their lists, and count the lost lease by the call's id.
-- KEYS  1 unacked   2 unacked_index   3 held   4 sweep record
-- ARGV  1 lease, seconds   2 most messages   3 seconds to keep a count   4 lost leases from which a call is suspect
--
-- They are fetched next, but suspects behind all others: one of them may be what kills workers.
--
-- Leases are judged by the server's clock, and cannot be renewed while the server is away. So a sweep that finds no
-- recent sweep before it waits one lease first: whoever lives has renewed by then. Where sweeps are always that late,
-- the third goes on nevertheless: else nothing would ever be restored.
-- A message whose list is no list stays held, and keeps no other from being restored.
-- Messages of stock workers have no record in `held` and are left to kombu's own visibility timeout.
--
-- Returns how many were restored.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local lease, most, suspect = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
-- Redis refuses only the first write of a script on a full server, and only one that needs memory.
redis.call('ZREM', KEYS[2], '')
local record = redis.call('HMGET', KEYS[4], 'at', 'from', 'late', 'cursor')
local from, late = tonumber(record[2] or 0), 0
if not record[1] or now - tonumber(record[1]) > lease / 2 then
  late = tonumber(record[3] or 0) + 1
  if late <= 2 then
    from = now + lease
  end
end
-- The clock was set back: what was to come in a lease at most would come much later. A living holder renews by the new
-- time; a dead one's lease begins anew.
from = math.min(from, now + lease)
for _, tag in ipairs(redis.call('ZRANGE', KEYS[2], string.format('(%.6f', now + lease), '+inf', 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('ZADD', KEYS[2], 'XX', string.format('%.6f', now), tag)
end
redis.call('HSET', KEYS[4], 'at', string.format('%.6f', now), 'from', string.format('%.6f', from), 'late', late)
if now < from then
  return 0
end

-- What a stock worker restored and ended leaves our record of it behind: a few are looked at by each sweep.
local scanned = redis.call('HSCAN', KEYS[3], record[4] or '0', 'COUNT', 20)
redis.call('HSET', KEYS[4], 'cursor', scanned[1])
for i = 1, #scanned[2], 2 do
  if redis.call('HEXISTS', KEYS[1], scanned[2][i]) == 0 then
    redis.call('HDEL', KEYS[3], scanned[2][i])
  end
end

local function restore(tag, message, list)
  local id, lost = id_of(message), 0
  if id then
    lost = redis.pcall('GET', 'gaia:lost:' .. id)
    lost = (type(lost) == 'string' and tonumber(lost) or 0) + 1
  end
  if not pcall(push, lost >= suspect and 'LPUSH' or 'RPUSH', list, message) then
    return false
  end
  if id then
    redis.pcall('INCR', 'gaia:lost:' .. id)
    redis.call('EXPIRE', 'gaia:lost:' .. id, ARGV[3])
  end
  redis.call('HDEL', KEYS[1], tag)
  redis.call('ZREM', KEYS[2], tag)
  redis.call('HDEL', KEYS[3], tag)
  return true
end

local restored, offset = 0, 0
while restored < most do
  local tags = redis.call('ZRANGE', KEYS[2], '-inf', string.format('%.6f', now - lease), 'BYSCORE', 'LIMIT', offset, 100)
  if #tags == 0 then
    break
  end
  for _, tag in ipairs(tags) do
    local own, held = redis.call('HGET', KEYS[3], tag), redis.call('HGET', KEYS[1], tag)
    local message, list = message_of(own or '', held or '')
    if message and restore(tag, message, list) then
      restored = restored + 1
    elseif message then
      offset = offset + 1
    elseif own and not held then
      -- A record without a message: nothing can be restored from it.
      redis.call('ZREM', KEYS[2], tag)
      redis.call('HDEL', KEYS[3], tag)
    else
      redis.call('HDEL', KEYS[3], tag)
      offset = offset + 1
    end
  end
end
return restored
