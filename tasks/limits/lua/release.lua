-- Give the slots of a lease back.
-- KEYS  its levels   ARGV  1 lease id
-- Returns 1 if it was held anywhere, else 0.
local now, held = now_us(), 0
for _, key in ipairs(KEYS) do
  local lapses = redis.call('ZSCORE', key, ARGV[1])
  if lapses then
    redis.call('ZREM', key, ARGV[1])
    if tonumber(lapses) > now then
      held = 1
    end
  end
end
return held
