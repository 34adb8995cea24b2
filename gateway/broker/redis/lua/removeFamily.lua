--[[
  Goes on from the functions of removeJob: removes a job with its children, as removeJob does, or its unfinished ones
  alone, as removeUnprocessedChildren does, unless these are more than Redis can be kept busy with.

  KEYS[1] job key
  KEYS[2] schedulers of its queue
  ARGV[1] job id
  ARGV[2] "1": with its children
  ARGV[3] base key of its queue
  ARGV[4] "1": the unfinished children alone
  ARGV[5] budget for the children, as that of removeChildren.lua; 0: as large as it has to be

  Returns what removeJob does; -100 when the budget is too small, and nothing was removed.
]]
local key, unfinished, budget = KEYS[1], ARGV[4] == "1", tonumber(ARGV[5])
local seen = {}

local function weigh(job)
  local places = {{"SCARD", ":dependencies", "SMEMBERS"}}
  if not unfinished then
    places[2] = {"HLEN", ":processed", "HKEYS"}
    places[3] = {"HLEN", ":failed", "HKEYS"}
    places[4] = {"ZCARD", ":unsuccessful", "ZRANGE", 0, -1}
  end
  for _, place in ipairs(places) do
    if seen[job] or rcall(place[1], job .. place[2]) * 1000 > budget then
      budget = -1
      return
    end
    seen[job] = true
    for _, child in ipairs(rcall(place[3], job .. place[2], unpack(place, 4))) do
      local base = string.match(child, "^(.*:)") or ""
      budget = budget - 1000
      for _, list in ipairs({"wait", "paused", "active"}) do
        budget = budget - rcall("LLEN", base .. list)
      end
      weigh(child)
      if budget < 0 then
        return
      end
    end
    seen[job] = nil
  end
end

if ARGV[2] == "1" and budget > 0 then
  weigh(key)
  if budget < 0 then
    return -100
  end
end
if unfinished then
  removeJobChildren(ARGV[3], key, {removeChildren = "1", ignoreProcessed = true, ignoreLocked = true})
  return 1
elseif isJobSchedulerJob(ARGV[1], key, KEYS[2]) then
  return -8
elseif isLocked(ARGV[3], ARGV[1], ARGV[2]) then
  return 0
end
local options = {removeChildren = ARGV[2] == "1", ignoreProcessed = false, ignoreLocked = false}
removeJobWithChildren(ARGV[3], ARGV[1], nil, options)
return 1
