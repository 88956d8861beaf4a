-- One turn of a worker: commit what has ended, then fetch what may start and record it as held.
-- Everything between two turns of other workers: no instant exists at which a message is on no list and not held.
--
-- KEYS  1 unacked   2 unacked_index   3 held   4 paused   5 delayed   6 delayed messages
--       7... the lists, priority by priority: p0 of every queue, then p3 of every queue, ...
-- ARGV  1 want   2 number of queues   3 fence   4 messages that have ended: "tag\tfence\n" each   5 number of commits
--       then 8 each: tag, fence, result key or "", result, seconds to keep it, action, and two values for it:
--            ""                            the message has ended
--            delay   due, message or ""    it waits for its time, as it is or changed
--            aside   operation             it waits for a paused operation
--            bury    reason, error         it becomes a dead letter
--            move    queue, message or ""  it goes to another queue, behind all others, as it is or changed
--       then the names of the queues
--
-- held: see _held.lua. A commit with another fence is refused: the lease lapsed, the message was given to somebody else.
--
-- A script that fails halfway is not undone. So what can fail is read before anything is written, what frees memory
-- comes before what needs it (Redis refuses only the first write of a script), and what was popped goes back if it
-- cannot be recorded.
--
-- Returns { refused commits, milliseconds to the next delayed message or -1, what is paused, the time,
--           then 5 each: queue number, message, tag, lost leases, cancelled }
local unacked, index, held, paused = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local delayed, waiting = KEYS[5], KEYS[6]
local first_list = 7
local want, queues, fence, commits = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[5])
local refused = 0

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))

-- A key of another type fails here.
redis.call('HLEN', unacked)
redis.call('ZCARD', index)
redis.call('HLEN', held)
redis.call('HLEN', waiting)
local soonest = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local stopped, names = {}, redis.call('SMEMBERS', paused)
for _, name in ipairs(names) do
  stopped[name] = true
end

local function act(message, list, action, a, b, tag)
  if action == 'delay' then
    local changed = b ~= '' and b or message
    if redis.call('EXISTS', 'gaia:cancel:' .. (id_of(message) or '')) == 1 then
      -- Cancelled since it was fetched: the next look at it ends it.
      push('RPUSH', list, changed)
      return
    end
    if redis.call('HEXISTS', waiting, tag) == 1 then
      -- Another message of the same tag waits already: a foreign producer gives no tags of their own.
      tag = 'x' .. fence .. '.' .. tag
    end
    redis.call('ZADD', delayed, a, tag)
    redis.call('HSET', waiting, tag, list .. '\n' .. changed)
  elseif action == 'aside' then
    if stopped[a] then
      redis.call('RPUSH', 'gaia:aside:' .. a, list .. '\n' .. message)
    else
      -- Resumed since it was fetched: what is put aside now nobody would look for.
      push('RPUSH', list, message)
    end
  elseif action == 'move' then
    push('LPUSH', a .. (string.match(list, '\6\22%d+$') or ''), b ~= '' and b or message)
  elseif action == 'bury' then
    local id = id_of(message) or ''
    bury(id, { queue = string.match(list, '^[^\6]*'), list = list, reason = a, error = b, message = message,
      lost = redis.call('GET', 'gaia:lost:' .. id) or '0' })
  end
end

local function commit(tags, fences, details)
  local owned, done, moved = redis.call('HMGET', held, unpack(tags)), {}, {}
  for i, tag in ipairs(tags) do
    local own = fences[i] .. ' '
    if owned[i] and string.sub(owned[i], 1, #own) == own then
      done[#done + 1] = tag
      local at = details[i]
      if at and ARGV[at + 5] ~= '' then
        local message, list = message_of(owned[i], redis.call('HGET', unacked, tag) or '')
        moved[i] = message and { message, list }
      end
    else
      refused = refused + 1
      details[i] = nil
    end
  end
  if #done == 0 then
    return
  end
  redis.call('ZREM', index, unpack(done))
  redis.call('HDEL', unacked, unpack(done))
  redis.call('HDEL', held, unpack(done))
  for i, at in pairs(details) do
    if ARGV[at + 2] ~= '' then
      redis.call('SET', ARGV[at + 2], ARGV[at + 3], 'EX', ARGV[at + 4])
      -- News only. An error here would end the script halfway, and the ends behind this one would be lost.
      redis.pcall('PUBLISH', ARGV[at + 2], ARGV[at + 3])
    end
    if moved[i] then
      local message, list = moved[i][1], moved[i][2]
      if not pcall(act, message, list, ARGV[at + 5], ARGV[at + 6], ARGV[at + 7], tags[i]) then
        push('LPUSH', list, message)
      end
    end
  end
end

local tags, fences, details = {}, {}, {}
for tag, own in string.gmatch(ARGV[4], '([^\t]*)\t([^\n]*)\n') do
  tags[#tags + 1] = tag
  fences[#fences + 1] = own
end
for i = 0, commits - 1 do
  tags[#tags + 1] = ARGV[6 + i * 8]
  fences[#fences + 1] = ARGV[7 + i * 8]
  details[#tags] = 6 + i * 8
end
local first_name = 6 + commits * 8
if #tags > 0 then
  commit(tags, fences, details)
end

-- Delayed messages whose time has come, whatever queue they are for. One whose list is no list is tried again later.
local next_due = -1
if soonest[2] and tonumber(soonest[2]) <= tonumber(now) then
  for _, tag in ipairs(redis.call('ZRANGE', delayed, '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do
    local list, message = string.match(redis.call('HGET', waiting, tag) or '', '^([^\n]*)\n(.*)$')
    if not list or pcall(push, 'RPUSH', list, message) then
      redis.call('ZREM', delayed, tag)
      redis.call('HDEL', waiting, tag)
    else
      redis.call('ZADD', delayed, 'XX', now + 60, tag)
    end
  end
end
soonest = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if soonest[2] then
  next_due = math.max(0, math.ceil((tonumber(soonest[2]) - tonumber(now)) * 1000))
end

local reply = { refused, next_due, names, now }
if want <= 0 then
  return reply
end

-- queue number, list, message, tag of what was popped
local popped, ids = {}, {}

local function take(queue, list, message)
  local number = #popped + 1
  local tag = last(message, '"delivery_tag":', '^ ?"([^"\\%c\128-\255]+)"') or ('x' .. fence .. '.' .. number)
  local id = id_of(message) or ''
  popped[number] = { queue, list, message, tag }
  ids[#ids + 1] = 'gaia:lost:' .. id
  ids[#ids + 1] = 'gaia:cancel:' .. id
end

local lists = #KEYS - first_list + 1
for first = 0, lists - 1, queues do
  local open = true
  while open and want > 0 do
    open = false
    local share = math.ceil(want / queues)
    for q = 0, queues - 1 do
      local list = KEYS[first_list + first + q]
      if want > 0 and not stopped[ARGV[first_name + q]] then
        -- A key of another type answers an error table, which has no items: the other lists are served all the same.
        for _, message in ipairs(redis.pcall('RPOP', list, math.min(share, want)) or {}) do
          take(q, list, message)
          want = want - 1
          open = true
        end
      end
    end
  end
end
if #popped == 0 then
  return reply
end

-- Two messages of one tag: the same message twice is one call, which is held already; another message is held under a
-- tag of its own.
local function record()
  local asked, seen, kept = {}, {}, {}
  for i, each in ipairs(popped) do
    asked[i] = each[4]
  end
  local owned = redis.call('HMGET', held, unpack(asked))
  local scores, records, owners = {}, {}, {}
  for i, each in ipairs(popped) do
    local list, message, tag = each[2], each[3], each[4]
    local twin = seen[tag] or (owned[i] and message_of(owned[i], redis.call('HGET', unacked, tag) or ''))
    if twin ~= message then
      if twin then
        tag = 'x' .. fence .. '.' .. i
        each[4] = tag
      end
      seen[tag] = message
      local exchange = last(message, '"exchange":', '^ ?("[^"\\]*")') or '""'
      local routing = last(message, '"routing_key":', '^ ?("[^"\\]*")') or '""'
      local whole = '[' .. message .. ', ' .. exchange .. ', ' .. routing .. ']'
      scores[#scores + 1] = now
      scores[#scores + 1] = tag
      records[#records + 1] = tag
      records[#records + 1] = whole
      owners[#owners + 1] = tag
      owners[#owners + 1] = fence .. ' ' .. #message .. ' ' .. #whole .. ' ' .. list
      kept[#kept + 1] = i
    end
  end
  if #owners > 0 then
    redis.call('HSET', unacked, unpack(records))
    redis.call('HSET', held, unpack(owners))
    redis.call('ZADD', index, unpack(scores))
  end
  return kept
end

local sound, kept = pcall(record)
if not sound then
  for i = #popped, 1, -1 do
    redis.call('RPUSH', popped[i][2], popped[i][3])
  end
  return redis.error_reply('what was fetched could not be recorded and went back')
end
local known = redis.call('MGET', unpack(ids))
for _, i in ipairs(kept) do
  local each = popped[i]
  reply[#reply + 1] = each[1]
  reply[#reply + 1] = each[3]
  reply[#reply + 1] = each[4]
  reply[#reply + 1] = tonumber(known[2 * i - 1] or 0) or 0
  reply[#reply + 1] = known[2 * i] and 1 or 0
end
return reply
