-- Included by the scripts that put messages back on lists.
-- A list may be of a node that has gone meanwhile. Its queue was swept, so the node is entered again, to be swept again.
local function push(command, list, message)
  redis.call(command, list, message)
  local node = string.match(list, '^gaia%.node%.([^\6]+)')
  if node then
    redis.call('ZADD', 'gaia:nodes', 'NX', 0, node)
  end
end

