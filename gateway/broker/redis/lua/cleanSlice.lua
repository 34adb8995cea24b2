--[[
  Goes on from the functions of cleanJobsInSet: removes some of the oldest jobs of some states.

  KEYS[1], KEYS[2] not used
  KEYS[3] schedulers: their next jobs stay
  ARGV[1] base key of the queue
  ARGV[2] only jobs that are not younger than this
  ARGV[3] how many jobs to look at
  ARGV[4...] for each state its name, at how many of its jobs to look, and how many to pass over: those that were kept

  Returns for each state at how many of its jobs to look next time, how many to pass over then, and the ids of those that
  were removed.
]]
local passed, looked

getJobsInZset = function(key, last, count)
  local ids = rcall("ZRANGEBYSCORE", key, 0, last, "LIMIT", passed, count)
  looked = #ids
  return ids
end

local function cleanState(state, key, most)
  local before = ARGV[2]
  if state == "wait" or state == "paused" or state == "active" then
    looked = math.min(most, rcall("LLEN", key) - passed)
    return cleanList(key, ARGV[1], -(passed + looked), -(passed + 1), before, state ~= "active", repeatKey)
  elseif state == "delayed" then
    return cleanSet(key, ARGV[1], "+inf", before, most, {"processedOn", "timestamp"}, false, repeatKey)
  elseif state == "prioritized" then
    return cleanSet(key, ARGV[1], "+inf", before, most, {"timestamp"}, false, repeatKey)
  end
  return cleanSet(key, ARGV[1], before, before, most, {"finishedOn"}, true)
end

local room, reply = limit, {}
for n = 4, #ARGV, 3 do
  local key, removed = ARGV[1] .. ARGV[n], {}
  local size = rcall(rcall("TYPE", key).ok == "list" and "LLEN" or "ZCARD", key)
  passed = tonumber(ARGV[n + 2])
  local left = math.max(math.min(tonumber(ARGV[n + 1]), size - passed), 0)
  if left > 0 and room > 0 then
    limit = math.min(left, room)
    removed = cleanState(ARGV[n], key, limit)[1]
    left = looked < limit and 0 or left - looked
    room = room - looked
    passed = passed + looked - #removed
  end
  reply[#reply + 1] = {left, passed, removed}
end
return reply
