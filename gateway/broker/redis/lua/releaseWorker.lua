--[[
  Give the lease of a webhook worker up, if it is the shard's.

  KEYS[1] the lease
  ARGV[1] the shard
]]
return redis.call("GET", KEYS[1]) == ARGV[1] and redis.call("DEL", KEYS[1]) or 0
