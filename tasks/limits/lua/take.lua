-- Take tokens of every bucket of a stack, or of none: the twin of tasks/limits/gcra.py, where the algorithm is explained.
-- KEYS  the buckets, hashes of `x` (level, millionths of a token) and `t` (the last admission, microseconds)
-- ARGV  1 tokens wanted   2 tokens given back   3 horizon, microseconds
--       then rate, burst and shadow ("1" or "0") of each bucket
-- Returns tokens (0 is a refusal), the wait in microseconds, the index of the refusing bucket from 0, then for each bucket
-- how many of the tokens a shadow would have refused, and 1 if it is near its limit.
local UNIT, NEAR, FULLEST, MARGIN_S = 1000000, 0.8, 2, 60
local now = now_us()
local wanted, returned, horizon = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local rates, bursts, shadows, levels, set_back = {}, {}, {}, {}, {}
local room, due
for i, key in ipairs(KEYS) do
  local at = 3 * i
  local rate, burst, shadow = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]) * UNIT, ARGV[at + 3] == '1'
  local kept = redis.call('HMGET', key, 'x', 't')
  local level, last = tonumber(kept[1] or 0), tonumber(kept[2] or now)
  level = math.min(level, FULLEST * burst)
  level = math.max(0, level - math.max(0, now - last) * rate)
  level = math.max(0, level - returned * UNIT)
  rates[i], bursts[i], shadows[i], levels[i], set_back[i] = rate, burst, shadow, level, last > now
  if not shadow then
    room = math.min(room or math.huge, math.floor((burst - level) / UNIT))
    due = math.min(due or math.huge, math.floor((burst - level + horizon * rate) / UNIT))
  end
end

local tokens, wait, refusing = wanted, 0, 0
if room and room >= 1 then
  tokens = math.min(wanted, room)
elseif room then
  tokens = math.max(0, math.min(wanted, due))
  wait = -math.huge
  for i = 1, #KEYS do
    local each = 0
    if not shadows[i] then
      each = (levels[i] + math.max(tokens, 1) * UNIT - bursts[i]) / rates[i]
    end
    if each > wait then
      wait, refusing = each, i - 1
    end
  end
end

local reply = { tokens, math.ceil(wait), refusing }
for i, key in ipairs(KEYS) do
  local fits = tokens
  if shadows[i] then
    fits = math.max(0, math.min(tokens, math.floor((bursts[i] - levels[i]) / UNIT)))
  end
  local level = levels[i] + fits * UNIT
  if fits > 0 or returned > 0 or set_back[i] then
    redis.call('HSET', key, 'x', string.format('%.17g', level), 't', string.format('%.0f', now))
    redis.call('EXPIRE', key, string.format('%.0f', math.ceil(level / UNIT / rates[i]) + MARGIN_S))
  end
  reply[#reply + 1] = tokens - fits
  reply[#reply + 1] = level > NEAR * bursts[i] and 1 or 0
end
return reply
