-- Look at what waits, is held, delayed and dead. Nothing is changed.
--
-- KEYS  1 unacked   2 held   3 delayed   4 dead letters   5 paused   6... lists
-- ARGV  1 how many held messages are told apart by their list
--
-- Returns { the time, unacked, delayed, due time of the first delayed or "", dead letters, { what is paused },
--           { a list and how many of it are held, ... } or nil if there are more than that, then 3 for each list:
--           length, when the message that is fetched next was submitted or "", its delivery tag or "" }
-- A key of another type counts as empty.
local function ask(...)
  local found = redis.pcall(...)
  if type(found) == 'table' and found.err then
    return nil
  end
  return found
end

-- Plain searches: a pattern that backtracks takes quadratic time on a message made to hurt.
local function after(text, key, pattern, width)
  local _, stop = string.find(text, key, 1, true)
  return stop and string.match(string.sub(text, stop + 1, stop + width), pattern) or ''
end

local time = redis.call('TIME')
local first = ask('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES') or {}
local unacked = ask('HLEN', KEYS[1]) or 0
local held, names, counted = {}, {}, false
if (ask('HLEN', KEYS[2]) or 0) <= tonumber(ARGV[1]) then
  counted = true
  for _, own in ipairs(ask('HVALS', KEYS[2]) or {}) do
    local list = string.match(own, '^%S+ %d+ %d+ (.*)$') or ''
    if not held[list] then
      names[#names + 1] = list
    end
    held[list] = (held[list] or 0) + 1
  end
end
local by_list = {}
for _, name in ipairs(names) do
  by_list[#by_list + 1] = name
  by_list[#by_list + 1] = held[name]
end

local reply = {
  time[1] .. '.' .. string.format('%06d', tonumber(time[2])), unacked, ask('ZCARD', KEYS[3]) or 0, first[2] or '',
  ask('ZCARD', KEYS[4]) or 0, ask('SMEMBERS', KEYS[5]) or {}, counted and by_list,
}
for at = 6, #KEYS do
  local length = ask('LLEN', KEYS[at]) or 0
  local submitted, tag = '', ''
  if length > 0 then
    local message = ask('LINDEX', KEYS[at], -1) or ''
    -- One that came back, or was led here, waits since then.
    submitted = after(message, '"gaia":', '^ ?{"again": ?(%d+%.?%d*)[,}]', 100)
    if submitted == '' then
      submitted = after(message, '"gaia":', '"at": ?(%d+%.?%d*)[,}]', 200)
    end
    tag = after(string.sub(message, -2048), '"delivery_tag":', '^ ?"([^"]+)"', 200)
  end
  reply[#reply + 1] = length
  reply[#reply + 1] = submitted
  reply[#reply + 1] = tag
end
return reply
