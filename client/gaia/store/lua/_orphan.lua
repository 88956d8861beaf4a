-- Included by the scripts that sweep the own queues of nodes.
-- Takes messages off a node's own queue, and delayed ones that were to come there, and keeps them until they are
-- answered. Returns how many more it may take; none is left if that is not 0. Two equal messages are one call, which
-- needs one answer.
local function orphan(node, most)
  for _, step in ipairs({ '', '\6\0223', '\6\0226', '\6\0229' }) do
    local list = 'gaia.node.' .. node .. step
    while most > 0 do
      local message = redis.call('RPOP', list)
      if not message then
        break
      end
      redis.call('HSET', 'gaia:orphans', redis.sha1hex(message), message)
      most = most - 1
    end
  end
  local later = 'gaia:later:' .. node
  while most > 0 do
    local tag = redis.call('ZPOPMIN', later)[1]
    if not tag then
      break
    end
    local list, message = string.match(redis.call('HGET', 'gaia:delayed:messages', tag) or '', '^([^\n]*)\n(.*)$')
    if list and string.match(list, '^gaia%.node%.([^\6]+)') == node then
      redis.call('ZREM', 'gaia:delayed', tag)
      redis.call('HDEL', 'gaia:delayed:messages', tag)
      redis.call('HSET', 'gaia:orphans', redis.sha1hex(message), message)
      most = most - 1
    end
  end
  return most
end

-- A few of those kept, as pairs of SHA-1 and message. Few, since each may have a megabyte.
local function orphans()
  if redis.call('EXISTS', 'gaia:orphans') == 0 then
    return {}
  end
  return redis.call('HRANDFIELD', 'gaia:orphans', 16, 'WITHVALUES')
end

