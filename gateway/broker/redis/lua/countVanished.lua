--[[
  Count that the holder of a job vanished, in the job's stalled counter (`stc`), while the lock is still the holder's.

  KEYS[1] job key
  KEYS[2] its lock
  KEYS[3] "repeat" key of the queue
  ARGV[1] the lock's token
  ARGV[2] how often holders may vanish

  Returns the counter, and 1 when the job is to fail, or 0; -1 when there is no such job, -2 when the lock is not ours
  (any more).
]]
if redis.call("EXISTS", KEYS[1]) == 0 then
  return -1
end
if redis.call("GET", KEYS[2]) ~= ARGV[1] then
  return -2
end
local count = redis.call("HINCRBY", KEYS[1], "stc", 1)
if count <= tonumber(ARGV[2]) then
  return {count, 0}
end
-- As moveStalledJobsToWait-9.lua: the job of a scheduler that is still there never fails by this.
local scheduler = redis.call("HGET", KEYS[1], "rjk")
if scheduler and (redis.call("EXISTS", KEYS[3] .. ":" .. scheduler) == 1 or redis.call("ZSCORE", KEYS[3], scheduler)) then
  return {count, 0}
end
return {count, 1}
