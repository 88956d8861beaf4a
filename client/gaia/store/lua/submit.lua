-- Queue a message: under an idempotency key, at a later time, both, in one step.
-- KEYS  1 list   2 the key's record   3 delayed   4 delayed messages   5 heartbeat of the node it must go to
-- ARGV  1 message   2 delivery tag   3 due, seconds since the epoch, or ""   4 call id   5 digest, or "" without key
--       6 seconds to keep the key   7 boot of that node, or "" if it may go to any
--       8 deadline, seconds since the epoch   9 1 if the result is stored, else 0
-- Returns {} when queued. Else nothing was queued: {id, digest, deadline, stored} is of the call that has the key,
-- {"lost"} says that the node has gone or has another boot.
if ARGV[5] ~= '' then
  local held = redis.call('HMGET', KEYS[2], 'id', 'digest', 'deadline', 'stored')
  if held[1] then
    return held
  end
end
if ARGV[7] ~= '' and redis.call('HGET', KEYS[5], 'boot') ~= ARGV[7] then
  return { 'lost' }
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], 'id', ARGV[4], 'digest', ARGV[5], 'deadline', ARGV[8], 'stored', ARGV[9])
  redis.call('EXPIRE', KEYS[2], ARGV[6])
end
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
  redis.call('HSET', KEYS[4], ARGV[2], KEYS[1] .. '\n' .. ARGV[1])
  local node = string.match(KEYS[1], '^gaia%.node%.([^\6]+)')
  if node then
    -- By this they are found when the node goes; those that have come due lie on its queue.
    redis.call('ZREMRANGEBYSCORE', 'gaia:later:' .. node, '-inf', redis.call('TIME')[1])
    redis.call('ZADD', 'gaia:later:' .. node, ARGV[3], ARGV[2])
  end
else
  redis.call('LPUSH', KEYS[1], ARGV[1])
end
return {}
