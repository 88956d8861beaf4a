-- A call under an idempotency key has ended: from now on its key lives as long as its result.
-- KEYS  1 the key's record   ARGV  1 call id   2 seconds to keep it
-- Returns 1, or 0 if the key is not, or no longer, this call's.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
  return 0
end
return redis.call('EXPIRE', KEYS[1], ARGV[2])
