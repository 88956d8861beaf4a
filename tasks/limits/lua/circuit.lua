-- One step of a circuit breaker: the twin of tasks/limits/circuit.py, where the state machine is explained.
-- KEYS  1 the circuit, a hash   2 those that are not closed, and what is held: a sorted set, by when the circuit ends
-- ARGV  1 `enter`, `succeeded`, `failed`, `abandoned`, `hold` or `look`   2 id of a probe, "" if it is none
--       3 failure threshold   4 microseconds open   5 success threshold   6 microseconds of a probe   7 channel, of changes
--       8 microseconds to hold everybody off
-- Returns the state (0 closed, 1 open, 2 half-open), failures in a row, and for `enter` microseconds to stay out, -1 for
-- the probe, 0 for a passage; last 1 if a hold is why. A change of state, or of the hold, is announced.
local POLL_US, KEPT_S = 1000000, 3600
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local key, index, verb, id = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local now = now_us()
local kept = redis.call('HMGET', key, 'failures', 'until', 'successes', 'probe', 'probe_until', 'held', 'since')
local failures, open_until, successes = tonumber(kept[1] or 0), tonumber(kept[2] or 0), tonumber(kept[3] or 0)
local probe, probe_until, held_until = kept[4] or '', tonumber(kept[5] or 0), tonumber(kept[6] or 0)

local function state()
  if open_until == 0 then
    return CLOSED
  end
  return now < open_until and OPEN or HALF_OPEN
end

local before, held_before = open_until, held_until
local was_out = open_until > 0 or now < held_until
local answer, changed, held = 0, false, now < held_until
local is_probe = id ~= '' and id == probe
if verb == 'hold' then
  held_until = math.max(held_until, now + tonumber(ARGV[8]))
  changed = held_until ~= held_before
elseif verb == 'enter' and held then
  answer = held_until - now
elseif verb == 'enter' then
  if state() == OPEN then
    answer = open_until - now
  elseif state() == HALF_OPEN and probe ~= '' and now < probe_until then
    answer = math.min(probe_until - now, POLL_US)
  elseif state() == HALF_OPEN then
    probe, probe_until, answer, changed = id, now + tonumber(ARGV[6]), -1, true
  end
elseif verb == 'succeeded' and state() == CLOSED then
  failures, changed = 0, failures > 0
elseif verb == 'succeeded' and is_probe then
  probe, successes, changed = '', successes + 1, true
  if successes >= tonumber(ARGV[5]) then
    failures, open_until, successes = 0, 0, 0
  end
elseif verb == 'failed' and (state() == CLOSED or is_probe) then
  if state() == CLOSED then
    failures = failures + 1
  end
  changed = true
  if open_until > 0 or failures >= tonumber(ARGV[3]) then
    open_until, successes, probe = now + math.max(1, tonumber(ARGV[4])), 0, ''
  end
elseif verb == 'abandoned' and is_probe then
  probe, changed = '', true
end

if changed and failures == 0 and open_until == 0 and held_until <= now then
  redis.call('DEL', key)
  redis.call('ZREM', index, key)
elseif changed then
  local life_s = KEPT_S + math.ceil(math.max(0, open_until - now, held_until - now) / 1000000)
  local is_out = open_until > 0 or now < held_until
  local since = is_out and (was_out and tonumber(kept[7]) or now) or 0
  redis.call('HSET', key, 'failures', failures, 'until', string.format('%.0f', open_until), 'successes', successes,
    'probe', probe, 'probe_until', string.format('%.0f', probe_until), 'held', string.format('%.0f', held_until),
    'since', string.format('%.0f', since))
  redis.call('EXPIRE', key, string.format('%.0f', life_s))
  if is_out then
    redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('%.0f', now))
    redis.call('ZADD', index, string.format('%.0f', now + life_s * 1000000), key)
    redis.call('EXPIRE', index, string.format('%.0f', math.max(life_s, redis.call('TTL', index))))
  else
    redis.call('ZREM', index, key)
  end
end
if open_until ~= before or held_until ~= held_before then
  redis.call('PUBLISH', ARGV[7], key)
end
return { state(), failures, answer, held and 1 or 0 }
