-- Included by the scripts that read messages.
-- Find the last string value of a key: the properties come last in a message, so its end is enough for all but odd
-- ones. Plain searches only: a pattern that backtracks takes quadratic time on a message made to hurt.
local function value_after(text, key, pattern)
  local found, from = nil, 1
  while true do
    local _, stop = string.find(text, key, from, true)
    if not stop then
      break
    end
    found, from = stop, stop + 1
  end
  return found and string.match(text, pattern, found + 1)
end

local function last(text, key, pattern)
  return value_after(string.sub(text, -2048), key, pattern) or value_after(text, key, pattern)
end

local function id_of(message)
  return last(message, '"correlation_id":', '^ ?"([^"\\]+)"')
end

