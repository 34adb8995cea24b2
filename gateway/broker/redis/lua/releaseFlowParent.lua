--[[
  Runs when all jobs of a flow have been added, for a parent with children that may have been there before: moves it out
  of waiting-children if none of its children is pending. Not if one of them is another parent's, or was not added: then
  the flow is not what was asked for, and the parent stays.

    KEYS[1]  the parent's hash
    KEYS[2…] the hashes of its children in this flow
    ARGV[1]  the parent's queue: <prefix>:<queue>
    ARGV[2]  the parent's id
    ARGV[3]  the time, in milliseconds
]]
local parent, queue, id = KEYS[1], ARGV[1], ARGV[2]

for n = 2, #KEYS do
  if redis.call("HGET", KEYS[n], "parentKey") ~= parent then
    return
  end
end
if redis.call("SCARD", parent .. ":dependencies") > 0 or redis.call("EXISTS", parent) == 0 then
  return
end
if redis.call("ZREM", queue .. ":waiting-children", id) == 0 then
  return
end

local options = redis.call("HMGET", parent, "delay", "priority")
local delay, priority = tonumber(options[1]) or 0, tonumber(options[2]) or 0

if delay > 0 then
  local due = tonumber(ARGV[3]) + delay
  redis.call("ZADD", queue .. ":delayed", due * 0x1000, id)
  redis.call("XADD", queue .. ":events", "*", "event", "delayed", "jobId", id, "delay", due)
  local first = redis.call("ZRANGE", queue .. ":delayed", 0, 0, "WITHSCORES")
  redis.call("ZADD", queue .. ":marker", tonumber(first[2]) / 0x1000, "1")
  return
end

if priority > 0 then
  local counter = redis.call("INCR", queue .. ":pc")
  redis.call("ZADD", queue .. ":prioritized", priority * 0x100000000 + counter % 0x100000000, id)
else
  redis.call("RPUSH", queue .. ":wait", id)
end
local limits = redis.call("HMGET", queue .. ":meta", "paused", "concurrency")
local is_full = limits[2] and redis.call("LLEN", queue .. ":active") >= tonumber(limits[2])
if not (limits[1] or is_full) then
  redis.call("ZADD", queue .. ":marker", 0, "0")
end
redis.call("XADD", queue .. ":events", "*", "event", "waiting", "jobId", id, "prev", "waiting-children")
