--[[
  Goes on from the functions of removeJob: removes some children of a job, and theirs, until its budget is spent.

  A parent among them keeps the last child that it waits for until it is removed itself: else it would move to wait, and
  a worker would take it. The job itself keeps its last one, too, unless only unfinished children are to be removed.

  KEYS[1] job key
  KEYS[2] schedulers of its queue
  ARGV[1] its id
  ARGV[2] where the children stand: processed, failed, unsuccessful or dependencies
  ARGV[3] "1": only what is not finished, without what workers hold, as removeUnprocessedChildren goes
  ARGV[4] budget, in entries of lists that are searched for a job
  ARGV[5...] keys of children

  Returns how many of these keys are done; -1 when a worker holds one; -8 when the job is a scheduler's next one.
]]
local place, unfinished, budget = ARGV[2], ARGV[3] == "1", tonumber(ARGV[4])
local options = {removeChildren = true, ignoreProcessed = unfinished, ignoreLocked = unfinished}
local places = unfinished and {} or {"processed", "failed", "unsuccessful"}
local forget = {processed = "HDEL", failed = "HDEL", unsuccessful = "ZREM", dependencies = "SREM"}
local path, locked = {[KEYS[1]] = true}, false
local shrink

-- To remove one job costs about as much as to search a thousand entries of a list.
local function pay(prefix)
  budget = budget - 1000
  for _, list in ipairs({"wait", "paused", "active"}) do
    budget = budget - rcall("LLEN", prefix .. list)
  end
end

-- Return false when the budget is spent or a worker holds the child.
local function removeChild(parent, from, child)
  local id = getJobIdFromKey(child)
  if id and not path[child] then
    local prefix = getJobKeyPrefix(child, id)
    if from == "dependencies" and rcall("EXISTS", child .. ":lock") == 1 then
      locked = not unfinished
      return unfinished
    end
    if unfinished and rcall("ZSCORE", prefix .. "failed", id) then
      return true
    end
    if not shrink(child) then
      return false
    end
    pay(prefix)
    removeJobWithChildren(prefix, id, parent, options)
  end
  rcall(forget[from], parent .. ":" .. from, child)
  return true
end

local function someOf(key, from)
  if from == "unsuccessful" then
    return rcall("ZRANGE", key, 0, 49)
  end
  local names = redis.pcall("HRANDFIELD", key, 50)
  return names.err and rcall("HKEYS", key) or names -- Redis before 6.2 has no HRANDFIELD
end

-- Remove the children of a job, except the last one that it waits for.
shrink = function(parent)
  path[parent] = true
  for _, from in ipairs(places) do
    local key = parent .. ":" .. from
    local children = someOf(key, from)
    while #children > 0 do
      for _, child in ipairs(children) do
        if budget <= 0 or not removeChild(parent, from, child) then
          return false
        end
      end
      children = someOf(key, from)
    end
  end
  local key, cursor = parent .. ":dependencies", "0"
  repeat
    local found = rcall("SSCAN", key, cursor, "COUNT", 100)
    cursor = found[1]
    for _, child in ipairs(found[2]) do
      local isLast = rcall("SCARD", key) == 1
      if budget <= 0 or not (isLast and (path[child] or shrink(child)) or not isLast and removeChild(parent, "dependencies", child)) then
        return false
      end
    end
  until cursor == "0"
  path[parent] = nil
  return true
end

if not unfinished and isJobSchedulerJob(ARGV[1], KEYS[1], KEYS[2]) then
  return -8
end
for n = 5, #ARGV do
  local done
  if place == "dependencies" and not unfinished and rcall("SCARD", KEYS[1] .. ":dependencies") == 1 then
    done = path[ARGV[n]] or shrink(ARGV[n])
  else
    done = removeChild(KEYS[1], place, ARGV[n])
  end
  if locked then
    return -1
  elseif not done or budget <= 0 then
    return done and n - 4 or n - 5
  end
end
return #ARGV - 4
