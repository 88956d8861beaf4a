-- Count the leases of a level.
-- KEYS  1 the level
return redis.call('ZCOUNT', KEYS[1], string.format('(%.0f', now_us()), '+inf')
