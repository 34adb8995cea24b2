--[[
  Goes on from the functions of moveStalledJobsToWait: checks a slice of the active jobs. That script looks for each
  stalled job in the whole list.

  With ARGV[7] it gives back the jobs of shards that have died, at once: those with a lock of theirs, and those whose
  lock has expired, whoever's it was.

  KEYS as there
  ARGV[1...4] as there
  ARGV[5] how many active jobs to pass over: the oldest ones, which are checked
  ARGV[6] how many to check
  ARGV[7] how the tokens of the dead begin, up to the incarnation
  ARGV[8] the incarnation that still lives, or is the next one to live; 0 where nobody is dead

  Returns how many to pass over next time, -1 when all are checked; and the ids of the jobs that are back in wait.
]]
local stalledKey, activeKey, checkKey = KEYS[1], KEYS[3], KEYS[4]
local passed, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local dead, living = ARGV[7], tonumber(ARGV[8])
if passed == 0 then
  if not dead then
    if rcall("EXISTS", checkKey) == 1 then
      return {-1, {}}
    end
    rcall("SET", checkKey, ARGV[3], "PX", ARGV[4])
  end
  trimEvents(KEYS[5], KEYS[8])
end

-- Return whether the check takes a job: it was active at the last one, and has no lock.
local function isStalled(id, key)
  if rcall("SISMEMBER", stalledKey, id) == 0 then
    rcall("SADD", stalledKey, id)
    return false
  end
  return rcall("EXISTS", key .. ":lock") == 0
end

-- Return whether a job was a dead shard's, or anybody's who has let its lock expire. One whose hash is not here, since
-- its slot moves in a cluster, is left alone: to count it would make half a job of it.
local function isLeft(id, key)
  if rcall("EXISTS", key) == 0 then
    return false
  end
  local token = rcall("GET", key .. ":lock")
  if not token then
    return rcall("HEXISTS", key, "processedOn") == 1
  end
  if rcall("GET", key .. ":accepted") == token then -- whoever has been given this token still works on the job
    return false
  end
  local incarnation = string.sub(token, 1, #dead) == dead and string.match(token, "^(%d+):", #dead + 1)
  if incarnation and tonumber(incarnation) < living then
    rcall("DEL", key .. ":lock")
    return true
  end
  return false
end

local GONE = ""
local MOST_MOVED = 100 -- jobs, of which each needs some fifteen commands
local isTaken = dead and isLeft or isStalled
local ids = rcall("LRANGE", activeKey, -(passed + most), -(passed + 1))
local stalled, kept = {}, 0
for n = #ids, 1, -1 do
  local id = ids[n]
  if isTaken(id, ARGV[2] .. id) then
    rcall("LSET", activeKey, n - #ids - passed - 1, GONE)
    rcall("SREM", stalledKey, id)
    table.insert(stalled, 1, id)
    if #stalled == MOST_MOVED then
      break
    end
  else
    kept = kept + 1
  end
end
if #stalled > 0 then
  rcall("LREM", activeKey, 0, GONE)
end
for _, id in ipairs(stalled) do
  local key = ARGV[2] .. id
  local count, scheduler = rcall("HINCRBY", key, "stc", 1), rcall("HGET", key, "rjk")
  local isScheduled = scheduler
    and (rcall("EXISTS", KEYS[9] .. ":" .. scheduler) == 1 or rcall("ZSCORE", KEYS[9], scheduler))
  if count > tonumber(ARGV[1]) and not isScheduled then
    rcall("HSET", key, "defa", "job stalled more than allowable limit")
  end
  moveJobToWait(KEYS[5], activeKey, KEYS[2], KEYS[6], KEYS[7], KEYS[8], id, "RPUSH")
  rcall("XADD", KEYS[8], "*", "event", "stalled", "jobId", id)
end
return {#ids < most and #stalled < MOST_MOVED and -1 or passed + kept, stalled}
