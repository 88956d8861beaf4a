-- Give held messages back to their lists.
-- KEYS  1 unacked   2 unacked_index   3 held
-- ARGV  1 "next" (to be fetched next) or "last" (behind all others)   then 2 each: tag, fence
-- Returns how many went back; a message held by somebody else by now stays where it is.
local command = ARGV[1] == 'next' and 'RPUSH' or 'LPUSH'
local given = 0
for i = 2, #ARGV, 2 do
  local tag = ARGV[i]
  local fence, length, list = string.match(redis.call('HGET', KEYS[3], tag) or '', '^(%S+) (%d+) (.*)$')
  local record = redis.call('HGET', KEYS[1], tag)
  if record and fence == ARGV[i + 1] then
    push(command, list, string.sub(record, 2, 1 + tonumber(length)))
    redis.call('ZREM', KEYS[2], tag)
    redis.call('HDEL', KEYS[1], tag)
    redis.call('HDEL', KEYS[3], tag)
    given = given + 1
  end
end
return given
