-- Claim an idempotency key for a call, or tell who holds it.
-- KEYS[1] the key's record   ARGV: call id, digest of the payload, milliseconds until an unconfirmed claim lapses
-- Returns {} when claimed, else {id, digest} of the holder.
local held = redis.call('HMGET', KEYS[1], 'id', 'digest')
if held[1] then
  return held
end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'digest', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {}
