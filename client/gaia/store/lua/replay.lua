-- Queue a dead letter's call again, behind all others, and remove the letter.
-- KEYS  1 the letter   2 dead letters   3 list   4 the record of the call's idempotency key, or any if it has none
-- ARGV  1 id   2 message   3 call id   4 and 5 how the letter is named and told in the call's history
--       6 seconds to keep the key, and the history unless it becomes a dead letter again
-- Returns 1, or 0 if the letter has gone meanwhile: then nothing was queued.
if redis.call('DEL', KEYS[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[3] ~= '' then
  redis.call('DEL', 'gaia:lost:' .. ARGV[3], 'gaia:cancel:' .. ARGV[3])
  redis.call('HSET', 'gaia:history:' .. ARGV[3], ARGV[4], ARGV[5])
  redis.call('EXPIRE', 'gaia:history:' .. ARGV[3], ARGV[6])
  if redis.call('HGET', KEYS[4], 'id') == ARGV[3] then
    redis.call('EXPIRE', KEYS[4], ARGV[6])
  end
end
push('LPUSH', KEYS[3], ARGV[2])
return 1
