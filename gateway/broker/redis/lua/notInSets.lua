--[[
  Find the ids that are in none of some sorted sets.

  KEYS[1...] sorted sets
  ARGV[1...] ids
]]
local found = {}
for _, id in ipairs(ARGV) do
  local isIn = false
  for _, key in ipairs(KEYS) do
    isIn = isIn or redis.call("ZSCORE", key, id)
  end
  if not isIn then
    found[#found + 1] = id
  end
end
return found
