--[[
  Read the hashes of some keys, so many that one call holds Redis only for a moment. Sizes are looked up first: what is
  too large is not touched. A hash of few short values is stored in one piece, and read in less time than its sizes.

  KEYS[1] what all keys begin with, as "bull:mails:"
  ARGV[1] the most bytes to read
  ARGV[2...] the rests of the keys

  Returns how many bytes were read, and the hashes of the first keys: empty where there is none. When the first one
  alone is larger, its size and no hash.
]]
local IN_ONE_PIECE = {listpack = true, ziplist = true}
local most = tonumber(ARGV[1])
local reply = {0}
for i = 2, #ARGV do
  local key, size, hash = KEYS[1] .. ARGV[i], 0, nil
  if IN_ONE_PIECE[redis.pcall("OBJECT", "ENCODING", key)] then
    hash = redis.call("HGETALL", key)
    for _, text in ipairs(hash) do
      size = size + #text
    end
  else
    for _, field in ipairs(redis.call("HKEYS", key)) do
      size = size + #field + redis.call("HSTRLEN", key, field)
    end
  end
  if reply[1] + size > most then
    return i == 2 and {size} or reply
  end
  reply[1] = reply[1] + size
  reply[i] = hash or redis.call("HGETALL", key)
end
return reply
