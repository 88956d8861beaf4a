-- Give the slots of leases of the same levels back.
-- KEYS  their levels   ARGV  the ids of the leases
-- Returns how many of them were held anywhere.
local now, held = now_us(), 0
for _, id in ipairs(ARGV) do
  local counts = 0
  for _, key in ipairs(KEYS) do
    local lapses = redis.call('ZSCORE', key, id)
    if lapses then
      redis.call('ZREM', key, id)
      if tonumber(lapses) > now then
        counts = 1
      end
    end
  end
  held = held + counts
end
return held
