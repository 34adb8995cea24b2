--[[
  Go on through the names of a hash's fields; their values, which may be large, stay where they are.

  KEYS[1] the hash
  ARGV[1] cursor
  ARGV[2] about how many names

  Returns the next cursor, and the names.
]]
local reply = redis.pcall("HSCAN", KEYS[1], ARGV[1], "COUNT", ARGV[2], "NOVALUES")
if not reply.err then
  return reply
end
-- Redis before 7.4 and Valkey before 8.0 have no NOVALUES: few entries at a time there.
local cursor, entries = unpack(redis.call("HSCAN", KEYS[1], ARGV[1], "COUNT", math.min(tonumber(ARGV[2]), 10)))
local names = {}
for i = 1, #entries, 2 do
  names[#names + 1] = entries[i]
end
return {cursor, names}
