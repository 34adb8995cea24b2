--[[
  Give a lock that is one holder's to another one. A second time does no harm.

  KEYS[1] the lock
  ARGV[1] the token that it has
  ARGV[2] the token that it gets
  ARGV[3] how long it lives from now on, in ms

  Returns 1; 0 when the lock is neither's (any more).
]]
local token = redis.call("GET", KEYS[1])
if token ~= ARGV[1] and token ~= ARGV[2] then
  return 0
end
redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[3])
return 1
