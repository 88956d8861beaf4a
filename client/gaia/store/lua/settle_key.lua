-- Confirm or release a claim, if it is still the caller's.
-- KEYS[1] the key's record   ARGV: call id, milliseconds to keep it (0: release)
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  return redis.call('DEL', KEYS[1])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
