-- Share answers with the cluster, unless a flush came since they were asked for.
-- KEYS  1 the count of flushes   then the answers, whose names hold the count
-- ARGV  1 the count as the writer knows it   then text and time to live, milliseconds, of each answer
-- Returns the count.
local count = tonumber(redis.call('GET', KEYS[1]) or 0)
if count == tonumber(ARGV[1]) then
  for i = 2, #KEYS do
    redis.call('SET', KEYS[i], ARGV[2 * i - 2], 'PX', ARGV[2 * i - 1])
  end
end
return count
