-- Remove a delayed message, unless it has come due or was changed meanwhile.
-- KEYS  1 delayed   2 delayed messages   ARGV  1 delivery tag   2 the entry
-- Returns 1, or 0 if it is another or none.
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])
