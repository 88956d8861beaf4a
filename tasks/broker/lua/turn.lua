-- One turn of a worker: commit what has ended, then fetch what may start and record it as held.
-- Everything between two turns of other workers: no instant exists at which a message is on no list and not held.
--
-- KEYS  1 unacked   2 unacked_index   3 held   4 paused   5 delayed   6 delayed messages
--       7... the lists, priority by priority: p0 of every queue, then p3 of every queue, ...
-- ARGV  1 want   2 number of queues   3 fence   4 number of commits
--       then 8 each: tag, fence, result key or "", result, seconds to keep it, action, and two values for it:
--            ""                            the message has ended
--            delay   due, message or ""    it waits for its time, as it is or changed
--            aside   operation             it waits for a paused operation
--            bury    reason, error         it becomes a dead letter
--            move    queue                 it goes to another queue, behind all others
--       then the names of the queues
--
-- held: tag -> "<fence> <length of the message> <list>". A commit with another fence is refused: the lease lapsed,
-- the message was given to somebody else.
--
-- Returns { refused commits, milliseconds to the next delayed message or -1, what is paused,
--           then 5 each: queue number, message, tag, lost leases, cancelled }
local unacked, index, held, paused = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local delayed, waiting = KEYS[5], KEYS[6]
local first_list = 7
local want, queues, fence, commits = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local at = 5
local refused = 0
local done = {}

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))

-- What an action needs of a held message: itself, and the list it came from.
local function recorded(tag, record)
  local length, list = string.match(record, '^%S+ (%d+) (.*)$')
  local entry = redis.call('HGET', unacked, tag) or ''
  return string.sub(entry, 2, 1 + tonumber(length)), list
end

local function act(tag, record, action, a, b)
  local message, list = recorded(tag, record)
  if action == 'delay' then
    redis.call('ZADD', delayed, a, tag)
    redis.call('HSET', waiting, tag, list .. '\n' .. (b ~= '' and b or message))
  elseif action == 'aside' then
    if redis.call('SISMEMBER', paused, a) == 1 then
      redis.call('RPUSH', 'gaia:aside:' .. a, list .. '\n' .. message)
    else
      -- Resumed since it was fetched: what is put aside now nobody would look for.
      push('RPUSH', list, message)
    end
  elseif action == 'move' then
    push('LPUSH', a .. (string.match(list, '\6\22%d+$') or ''), message)
  elseif action == 'bury' then
    local id = id_of(message) or ''
    bury(id, { queue = string.match(list, '^[^\6]*'), list = list, reason = a, error = b, message = message,
      lost = redis.call('GET', 'gaia:lost:' .. id) or '0' })
  end
end

if commits > 0 then
  local tags = {}
  for i = 1, commits do
    tags[i] = ARGV[at + (i - 1) * 8]
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
      if ARGV[at + 5] ~= '' then
        act(tags[i], records[i], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7])
      end
    else
      refused = refused + 1
    end
    at = at + 8
  end
  if #done > 0 then
    redis.call('ZREM', index, unpack(done))
    redis.call('HDEL', unacked, unpack(done))
    redis.call('HDEL', held, unpack(done))
  end
end

-- Delayed messages whose time has come, whatever queue they are for.
local next_due = -1
for _, tag in ipairs(redis.call('ZRANGE', delayed, '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do
  local list, message = string.match(redis.call('HGET', waiting, tag) or '', '^([^\n]*)\n(.*)$')
  if list then
    push('RPUSH', list, message)
  end
  redis.call('ZREM', delayed, tag)
  redis.call('HDEL', waiting, tag)
end
local soonest = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if soonest[2] then
  next_due = math.max(0, math.ceil((tonumber(soonest[2]) - tonumber(now)) * 1000))
end

local stopped, names = {}, {}
for _, name in ipairs(redis.call('SMEMBERS', paused)) do
  stopped[name] = true
  names[#names + 1] = name
end

local reply = { refused, next_due, names }
if want <= 0 then
  return reply
end

local scores, records, owners = {}, {}, {}

local function take(queue, list, message)
  local tag = last(message, '"delivery_tag":', '^ ?"([^"\\]+)"')
  if not tag then
    bury('', { queue = queue, reason = 'no message: it has no delivery tag', message = string.sub(message, 1, 65536) })
    return
  end
  local exchange = last(message, '"exchange":', '^ ?("[^"\\]*")') or '""'
  local routing = last(message, '"routing_key":', '^ ?("[^"\\]*")') or '""'
  scores[#scores + 1] = now
  scores[#scores + 1] = tag
  records[#records + 1] = tag
  records[#records + 1] = '[' .. message .. ', ' .. exchange .. ', ' .. routing .. ']'
  owners[#owners + 1] = tag
  owners[#owners + 1] = fence .. ' ' .. #message .. ' ' .. list
  local id = id_of(message)
  local lost, cancelled = 0, 0
  if id then
    lost = tonumber(redis.call('GET', 'gaia:lost:' .. id) or 0)
    cancelled = redis.call('EXISTS', 'gaia:cancel:' .. id)
  end
  return tag, lost, cancelled
end

local lists = #KEYS - first_list + 1
for first = 0, lists - 1, queues do
  local open = true
  while open and want > 0 do
    open = false
    local share = math.ceil(want / queues)
    for q = 0, queues - 1 do
      local queue = ARGV[at + q]
      local list = KEYS[first_list + first + q]
      if want > 0 and not stopped[queue] then
        -- A key of another type answers an error table, which has no items: the other lists are served all the same.
        for _, message in ipairs(redis.pcall('RPOP', list, math.min(share, want)) or {}) do
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
