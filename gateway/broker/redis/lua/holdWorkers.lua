--[[
  Renew the leases of the webhook workers that a shard runs, and take those that are free.

  KEYS the leases, one for each registration that is known; first those that the shard runs
  ARGV[1] the shard
  ARGV[2] how long a lease lasts, in ms
  ARGV[3] how many free ones to take
  ARGV[4] a shard that is dead, whose leases are free
  ARGV[5] how many the shard runs; it gets back what has expired meanwhile

  Returns for each whose it is: 1 the shard's, 0 nobody's, -1 another one's.
]]
local owners, left, runs = {}, tonumber(ARGV[3]), tonumber(ARGV[5])
for place, key in ipairs(KEYS) do
  local owner = redis.call("GET", key)
  if owner == ARGV[4] then
    owner = false
  end
  local isOurs = owner == ARGV[1] or (not owner and place <= runs)
  if isOurs or (not owner and left > 0) then
    left = isOurs and left or left - 1
    redis.call("SET", key, ARGV[1], "PX", ARGV[2])
    owners[place] = 1
  else
    owners[place] = owner and -1 or 0
  end
end
return owners
