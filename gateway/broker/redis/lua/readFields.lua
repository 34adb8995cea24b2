--[[
  Read some fields of a hash, as readJobs.lua reads hashes.

  KEYS[1] the hash
  ARGV[1] the most bytes to read
  ARGV[2...] names of fields

  Returns how many bytes were read, and the first values: nil where there is none. When the first one alone is larger,
  its size and no value.
]]
local most = tonumber(ARGV[1])
local reply = {0}
for i = 2, #ARGV do
  local size = redis.call("HSTRLEN", KEYS[1], ARGV[i])
  if reply[1] + size > most then
    return i == 2 and {size} or reply
  end
  reply[1] = reply[1] + size
  reply[i] = redis.call("HGET", KEYS[1], ARGV[i])
end
return reply
