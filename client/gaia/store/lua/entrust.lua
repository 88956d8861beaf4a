-- Let calls that wait for a node's own queue, or on it, wait in another queue's name until much later: for a worker that
-- goes and will answer them itself. Should it not come to that, whoever fetches them then finds the node gone.
-- KEYS  1 delayed   2 delayed messages   3 the node's delayed calls
-- ARGV  1 escaped node   2 seconds to wait   3 list of the other queue   then the calls' ids
-- Returns how many were found.
local time = redis.call('TIME')
local due = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[2]))
local found, missing = 0, {}

local function keep(id, message)
  redis.call('HSET', KEYS[2], id, ARGV[3] .. '\n' .. message)
  redis.call('ZADD', KEYS[1], due, id)
  redis.call('ZREM', KEYS[3], id)
  found = found + 1
end

for i = 4, #ARGV do
  local list, message = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '', '^([^\n]*)\n(.*)$')
  if list and string.match(list, '^gaia%.node%.([^\6]+)') == ARGV[1] then
    keep(ARGV[i], message)
  else
    missing[#missing + 1] = ARGV[i]
  end
end

-- Come due, and not fetched yet: few, for the worker was there until now.
for _, step in ipairs({ '', '\6\0223', '\6\0226', '\6\0229' }) do
  local own = 'gaia.node.' .. ARGV[1] .. step
  for _, message in ipairs(#missing > 0 and redis.call('LRANGE', own, -200, -1) or {}) do
    for _, id in ipairs(missing) do
      local name = cjson.encode(id)
      if string.find(message, '"id": ' .. name, 1, true) or string.find(message, '"id":' .. name, 1, true) then
        redis.call('LREM', own, -1, message)
        keep(id, message)
        break
      end
    end
  end
end
return found
