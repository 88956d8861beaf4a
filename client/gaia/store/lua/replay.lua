-- Queue a dead letter's call again, behind all others, and remove the letter.
-- KEYS  1 the letter   2 dead letters   3 list   ARGV  1 id   2 message   3 call id
-- Returns 1, or 0 if the letter has gone meanwhile: then nothing was queued.
if redis.call('DEL', KEYS[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[3] ~= '' then
  redis.call('DEL', 'gaia:lost:' .. ARGV[3], 'gaia:cancel:' .. ARGV[3])
end
push('LPUSH', KEYS[3], ARGV[2])
return 1
