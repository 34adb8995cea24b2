--[[
  Give a shard's sign of life, and show those of all others.

  KEYS[1] hash of all signs: how many each shard has given
  KEYS[2] the claim of whoever gives the jobs of this shard back
  KEYS[3] the version of the webhook registrations
  ARGV[1] the shard

  Returns how many signs this shard has given, 1 when it is not known (any more); 1 when its jobs are being given back,
  or 0; shards and their signs in turn; and the version.
]]
local count = redis.call("HINCRBY", KEYS[1], ARGV[1], 1)
return {count, redis.call("EXISTS", KEYS[2]), redis.call("HGETALL", KEYS[1]), redis.call("GET", KEYS[3])}
