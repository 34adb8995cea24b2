--[[
  Read some entries of a list, as readJobs.lua reads hashes.

  KEYS[1] the list
  ARGV[1] the most bytes to read
  ARGV[2...] indexes

  Returns how many bytes were read, and the first entries: nil where there is none. When the first one alone is larger,
  its size and no entry.
]]
local most = tonumber(ARGV[1])
local reply = {0}
for i = 2, #ARGV do
  local row = redis.call("LINDEX", KEYS[1], ARGV[i])
  local size = row and #row or 0
  if reply[1] + size > most then
    return i == 2 and {size} or reply
  end
  reply[1] = reply[1] + size
  reply[i] = row
end
return reply
