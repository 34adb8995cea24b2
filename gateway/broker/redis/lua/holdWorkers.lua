--[[
  Renew the leases of the webhook workers that a shard runs, and take those that are free.

  KEYS the leases, one for each registration that is known
  ARGV[1] the shard
  ARGV[2] how long a lease lasts, in ms
  ARGV[3] how many free ones to take
  ARGV[4] a shard that is dead, whose leases are free

  Returns for each whose it is: 1 the shard's, 0 nobody's, -1 another one's.
]]
local owners, left = {}, tonumber(ARGV[3])
for place, key in ipairs(KEYS) do
  local owner = redis.call("GET", key)
  if owner == ARGV[4] then
    owner = false
  end
  if owner == ARGV[1] or (not owner and left > 0) then
    left = owner and left or left - 1
    redis.call("SET", key, ARGV[1], "PX", ARGV[2])
    owners[place] = 1
  else
    owners[place] = owner and -1 or 0
  end
end
return owners
