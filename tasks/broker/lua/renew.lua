-- Renew leases by the server's clock.
-- KEYS  1 unacked_index   2 held      ARGV  2 each: tag, fence
-- Returns 2 each: tag and fence of the leases that are somebody else's, or nobody's, by now.
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
-- Redis refuses only the first write of a script on a full server, and only one that needs memory. Without it leases
-- would lapse there, while sweeps, which begin so, give the messages to others.
redis.call('ZREM', KEYS[1], '')
local lost = {}
for i = 1, #ARGV, 2 do
  local record = redis.call('HGET', KEYS[2], ARGV[i])
  local own = ARGV[i + 1] .. ' '
  if record and string.sub(record, 1, #own) == own then
    redis.call('ZADD', KEYS[1], 'XX', now, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
    lost[#lost + 1] = ARGV[i + 1]
  end
end
return lost
