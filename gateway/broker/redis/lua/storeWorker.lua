--[[
  Store the registration of a webhook worker, or remove it, and tell all gateways by the version: unless it has changed
  since somebody has looked whether he may do so.

  KEYS[1] hash of all registrations
  KEYS[2] their version
  KEYS[3] hash of the names of the keys that have stored them
  ARGV[1] the name
  ARGV[2] the registration as JSON; empty to remove it
  ARGV[3] the one that is there; empty for none
  ARGV[4] how many there may be
  ARGV[5] the name of the key that stores it; empty for one that is not limited
  ARGV[6] how many there may be of one key

  Returns 0 when that is done, -1 when another one is there, -2 when there are too many, -3 too many of the key.
]]
local name, text, key = ARGV[1], ARGV[2], ARGV[5]
local before = redis.call("HGET", KEYS[1], name)
if (before or "") ~= ARGV[3] then
  return -1
end
if text == "" then
  redis.call("HDEL", KEYS[1], name)
  redis.call("HDEL", KEYS[3], name)
else
  if not before and redis.call("HLEN", KEYS[1]) >= tonumber(ARGV[4]) then
    return -2
  end
  if key == "" then
    redis.call("HDEL", KEYS[3], name)
  else
    local left = tonumber(ARGV[6])
    if redis.call("HGET", KEYS[3], name) ~= key then
      for _, other in ipairs(redis.call("HVALS", KEYS[3])) do
        left = other == key and left - 1 or left
      end
      if left <= 0 then
        return -3
      end
    end
    redis.call("HSET", KEYS[3], name, key)
  end
  redis.call("HSET", KEYS[1], name, text)
end
redis.call("INCR", KEYS[2])
return 0
