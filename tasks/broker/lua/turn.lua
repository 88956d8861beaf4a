-- One turn of a worker: commit what has ended, then fetch what may start and record it as held.
-- Everything between two turns of other workers: no instant exists at which a message is on no list and not held.
--
-- KEYS  1 unacked   2 unacked_index   3 held   4 paused   5 dead letters
--       6... the lists, priority by priority: p0 of every queue, then p3 of every queue, ...
-- ARGV  1 want   2 number of queues   3 fence   4 number of commits
--       then 5 each: tag, fence, result key or "", result, seconds to keep it
--       then the names of the queues
--
-- held: tag -> "<fence> <length of the message> <list>". A commit with another fence is refused: the lease lapsed,
-- the message was given to somebody else.
--
-- Returns { refused commits, then 5 each: queue number, message, tag, lost leases, cancelled }
local unacked, index, held, paused, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local want, queues, fence, commits = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local at = 5
local refused = 0
local done = {}

if commits > 0 then
  local tags = {}
  for i = 1, commits do
    tags[i] = ARGV[at + (i - 1) * 5]
  end
  local records = redis.call('HMGET', held, unpack(tags))
  for i = 1, commits do
    local own = ARGV[at + 1] .. ' '
    if records[i] and string.sub(records[i], 1, #own) == own then
      done[#done + 1] = tags[i]
      if ARGV[at + 2] ~= '' then
        redis.call('SET', ARGV[at + 2], ARGV[at + 3], 'EX', ARGV[at + 4])
        redis.call('PUBLISH', ARGV[at + 2], ARGV[at + 3])
      end
    else
      refused = refused + 1
    end
    at = at + 5
  end
  if #done > 0 then
    redis.call('ZREM', index, unpack(done))
    redis.call('HDEL', unacked, unpack(done))
    redis.call('HDEL', held, unpack(done))
  end
end

local reply = { refused }
if want <= 0 then
  return reply
end

local stopped = {}
for _, name in ipairs(redis.call('SMEMBERS', paused)) do
  stopped[name] = true
end

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local scores, records, owners = {}, {}, {}

local function last(text, pattern)
  -- The properties come last in a message, so its end is enough for all but odd ones.
  return string.match(string.sub(text, -2048), pattern) or string.match(text, pattern)
end

local function take(queue, list, message)
  local tag = last(message, '.*"delivery_tag": ?"([^"\\]+)"')
  if not tag then
    redis.call('XADD', dead, 'MAXLEN', '~', 10000, '*', 'queue', queue, 'reason', 'no message: it has no delivery tag',
      'at', now, 'message', string.sub(message, 1, 65536))
    return
  end
  local exchange = last(message, '.*"delivery_info": ?{"exchange": ?("[^"\\]*")') or '""'
  local routing = last(message, '.*"routing_key": ?("[^"\\]*")') or '""'
  scores[#scores + 1] = now
  scores[#scores + 1] = tag
  records[#records + 1] = tag
  records[#records + 1] = '[' .. message .. ', ' .. exchange .. ', ' .. routing .. ']'
  owners[#owners + 1] = tag
  owners[#owners + 1] = fence .. ' ' .. #message .. ' ' .. list
  local id = last(message, '.*"correlation_id": ?"([^"\\]+)"')
  local lost, cancelled = 0, 0
  if id then
    lost = tonumber(redis.call('GET', 'gaia:lost:' .. id) or 0)
    cancelled = redis.call('EXISTS', 'gaia:cancel:' .. id)
  end
  return tag, lost, cancelled
end

local lists = #KEYS - 5
for first = 0, lists - 1, queues do
  local open = true
  while open and want > 0 do
    open = false
    local share = math.ceil(want / queues)
    for q = 0, queues - 1 do
      local queue = ARGV[at + q]
      local list = KEYS[6 + first + q]
      if want > 0 and not stopped[queue] then
        for _, message in ipairs(redis.call('RPOP', list, math.min(share, want)) or {}) do
          local tag, lost, cancelled = take(queue, list, message)
          if tag then
            reply[#reply + 1] = q
            reply[#reply + 1] = message
            reply[#reply + 1] = tag
            reply[#reply + 1] = lost
            reply[#reply + 1] = cancelled
            want = want - 1
          end
          open = true
        end
      end
    end
  end
end

if #owners > 0 then
  redis.call('ZADD', index, unpack(scores))
  redis.call('HSET', unacked, unpack(records))
  redis.call('HSET', held, unpack(owners))
end
return reply
