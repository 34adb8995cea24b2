--[[
  Store the registration of a webhook worker, or remove it, and tell all gateways by the version.

  KEYS[1] hash of all registrations
  KEYS[2] their version
  ARGV[1] the name
  ARGV[2] the registration as JSON; empty to remove it
  ARGV[3] how many there may be

  Returns 1 when it is new, or was removed; 0 when there was one, or none to remove; -1 when there are too many.
]]
local changed
if ARGV[2] == "" then
  changed = redis.call("HDEL", KEYS[1], ARGV[1])
  if changed == 0 then
    return 0
  end
else
  if redis.call("HEXISTS", KEYS[1], ARGV[1]) == 0 and redis.call("HLEN", KEYS[1]) >= tonumber(ARGV[3]) then
    return -1
  end
  changed = redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
end
redis.call("INCR", KEYS[2])
return changed
