-- Give the slots of a lease back that is held at every level, else change nothing.
-- KEYS  its levels   ARGV  1 lease id
-- Returns the index of the innermost level where it is not held any more, from 0; -1 if it was held everywhere.
local now = now_us()
for i = #KEYS, 1, -1 do
  local lapses = redis.call('ZSCORE', KEYS[i], ARGV[1])
  if not lapses or tonumber(lapses) <= now then
    return i - 1
  end
end
for _, key in ipairs(KEYS) do
  redis.call('ZREM', key, ARGV[1])
end
return -1
