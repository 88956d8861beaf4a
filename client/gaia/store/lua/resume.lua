-- Let a queue or an operation run again; what was put aside for an operation goes back, to be fetched next.
-- KEYS  1 paused   2 the list of what was put aside   ARGV  1 name
-- Returns how many messages went back.
redis.call('SREM', KEYS[1], ARGV[1])
local given = 0
while true do
  -- The newest first, and each to the end that is fetched next: the oldest ends up in front.
  local entry = redis.call('RPOP', KEYS[2])
  if not entry then
    return given
  end
  local list, message = string.match(entry, '^([^\n]*)\n(.*)$')
  if not list or not pcall(push, 'RPUSH', list, message) then
    -- Its list has become a key of another type: it stays here, and so does the pause, for another try.
    redis.call('RPUSH', KEYS[2], entry)
    redis.call('SADD', KEYS[1], ARGV[1])
    return redis.error_reply('a message cannot go back to its list; the pause holds on')
  end
  given = given + 1
end
