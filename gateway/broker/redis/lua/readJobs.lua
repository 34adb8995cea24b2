--[[
  Read the hashes of some keys, so many that one call holds Redis only for a moment. Sizes are looked up first: what is
  too large is not touched.

  KEYS[1] what all keys begin with, as "bull:mails:"
  ARGV[1] the most bytes to read
  ARGV[2...] the rests of the keys

  Returns how many bytes were read, and the hashes of the first keys: empty where there is none. When the first one
  alone is larger, its size and no hash.
]]
local most = tonumber(ARGV[1])
local reply = {0}
for i = 2, #ARGV do
  local key, size = KEYS[1] .. ARGV[i], 0
  for _, field in ipairs(redis.call("HKEYS", key)) do
    size = size + #field + redis.call("HSTRLEN", key, field)
  end
  if reply[1] + size > most then
    return i == 2 and {size} or reply
  end
  reply[1] = reply[1] + size
  reply[i] = redis.call("HGETALL", key)
end
return reply
