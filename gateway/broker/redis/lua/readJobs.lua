--[[
  Read the hashes of some jobs, so many that one call holds Redis only for a moment.

  KEYS[1] base key of the queue, as "bull:mails:"
  ARGV[1] bytes after which it stops; one hash is read at least
  ARGV[2...] ids

  Returns the bytes that were read, and the hashes of the first ids: empty where there is none.
]]
local most = tonumber(ARGV[1])
local reply = {0}
for i = 2, #ARGV do
  local hash = redis.call("HGETALL", KEYS[1] .. ARGV[i])
  reply[i] = hash
  for j = 1, #hash do
    reply[1] = reply[1] + #hash[j]
  end
  if reply[1] >= most then
    break
  end
end
return reply
