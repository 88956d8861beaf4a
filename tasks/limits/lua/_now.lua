-- Included by every script of limits: the server's clock, in whole microseconds since the epoch.
local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

