-- Change what is set for a name.
-- KEYS  1 the settings
-- ARGV  1 name   2 JSON object of the fields that change   3 most names   4 field of the revision   5 channel
-- Returns the JSON that is set now, nothing if there are too many names. A record that cannot be read is replaced.
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if not kept and redis.call('HLEN', KEYS[1]) > tonumber(ARGV[3]) then
  return false
end
local sound, record = pcall(cjson.decode, kept or '{}')
if not sound or type(record) ~= 'table' then
  record = {}
end
for field, value in pairs(cjson.decode(ARGV[2])) do
  record[field] = value
end
local text = cjson.encode(record)
redis.call('HSET', KEYS[1], ARGV[1], text)
redis.call('HINCRBY', KEYS[1], ARGV[4], 1)
redis.call('PUBLISH', ARGV[5], KEYS[1])
return text
