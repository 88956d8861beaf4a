-- Included by the scripts that make dead letters.
-- Keeps a letter and its history for thirty days, and at most ten thousand of them; the oldest go first.
local function bury(id, letter)
  if not id or id == '' then
    id = 'x' .. redis.call('INCR', 'gaia:dead-serial')
  end
  local time = redis.call('TIME')
  local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
  local fields = { 'at', now }
  for name, value in pairs(letter) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  redis.call('DEL', 'gaia:dead:' .. id)
  redis.call('HSET', 'gaia:dead:' .. id, unpack(fields))
  redis.call('EXPIRE', 'gaia:dead:' .. id, 2592000)
  redis.call('EXPIRE', 'gaia:history:' .. id, 2592000)
  redis.call('ZADD', 'gaia:dead', now, id)
  local excess = redis.call('ZCARD', 'gaia:dead') - 10000
  if excess > 0 then
    local oldest = redis.call('ZPOPMIN', 'gaia:dead', excess)
    for i = 1, #oldest, 2 do
      redis.call('DEL', 'gaia:dead:' .. oldest[i], 'gaia:history:' .. oldest[i])
    end
  end
end

