--[[
  Give a shard's sign of life, and show those of all others.

  KEYS[1] hash of all signs: how many each shard has given, by its own count, which no loss of the hash sets back
  KEYS[2] the claim of whoever gives the jobs of this shard back
  KEYS[3] the version of the webhook registrations
  ARGV[1] the shard
  ARGV[2] how many signs it has given, with this one

  Returns 1 when the shard was not known (any more), or 0; 1 when its jobs are being given back, or 0; shards and their
  signs in turn; and the version.
]]
local is_new = redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return {is_new, redis.call("EXISTS", KEYS[2]), redis.call("HGETALL", KEYS[1]), redis.call("GET", KEYS[3])}
