--[[
  Delete a key that still has the value by which its owner knows it: a lease of a webhook worker, or a job's mark.

  KEYS[1] the key
  ARGV[1] the value
]]
return redis.call("GET", KEYS[1]) == ARGV[1] and redis.call("DEL", KEYS[1]) or 0
