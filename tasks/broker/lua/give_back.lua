-- Give held messages back to their lists.
-- KEYS  1 unacked   2 unacked_index   3 held
-- ARGV  1 "next" (to be fetched next, the last one given first) or "last" (behind all others)   then 2 each: tag, fence
-- Returns how many went back; a message held by somebody else by now stays where it is.
local command = ARGV[1] == 'next' and 'RPUSH' or 'LPUSH'
local given = 0
-- Redis refuses only the first write of a script on a full server, and only one that needs memory.
redis.call('ZREM', KEYS[2], '')
for i = 2, #ARGV, 2 do
  local tag, fence = ARGV[i], ARGV[i + 1] .. ' '
  local own = redis.call('HGET', KEYS[3], tag) or ''
  if string.sub(own, 1, #fence) == fence then
    local message, list = message_of(own, redis.call('HGET', KEYS[1], tag) or '')
    -- One whose list is no list stays held until its lease lapses, and keeps no other from going back.
    if not message then
      redis.call('HDEL', KEYS[3], tag)
    elseif pcall(push, command, list, message) then
      redis.call('ZREM', KEYS[2], tag)
      redis.call('HDEL', KEYS[1], tag)
      redis.call('HDEL', KEYS[3], tag)
      given = given + 1
    end
  end
end
return given
