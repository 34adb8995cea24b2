--[[
  Read some fields of a hash, or entries of a list, as readJobs.lua reads hashes.

  KEYS[1] the hash or list
  ARGV[1] the most bytes to read
  ARGV[2...] names of fields, or indexes

  Returns how many bytes were read, and the first values: nil where there is none. When the first one alone is larger,
  its size and no value.
]]
local most = tonumber(ARGV[1])
local is_list = redis.call("TYPE", KEYS[1]).ok == "list"
local reply = {0}
for i = 2, #ARGV do
  local row = is_list and redis.call("LINDEX", KEYS[1], ARGV[i])
  local size = is_list and (row and #row or 0) or redis.call("HSTRLEN", KEYS[1], ARGV[i])
  if reply[1] + size > most then
    return i == 2 and {size} or reply
  end
  reply[1] = reply[1] + size
  if is_list then
    reply[i] = row
  else
    reply[i] = redis.call("HGET", KEYS[1], ARGV[i])
  end
end
return reply
