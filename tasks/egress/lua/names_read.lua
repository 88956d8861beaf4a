-- Read answers that the cluster shares.
-- KEYS  1 the count of flushes   then the answers, whose names hold the count
-- ARGV  1 the count as the reader knows it
-- Returns the count; if it is still that, then for each answer its text or false, and how long it is kept, milliseconds.
local count = tonumber(redis.call('GET', KEYS[1]) or 0)
local reply = { count }
if count == tonumber(ARGV[1]) then
  for i = 2, #KEYS do
    local text = redis.call('GET', KEYS[i])
    reply[#reply + 1] = text
    reply[#reply + 1] = text and redis.call('PTTL', KEYS[i]) or 0
  end
end
return reply
