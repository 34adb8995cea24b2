--[[
  Count that the holder of a job vanished, in the job's stalled counter (`stc`), while the lock is still the holder's.

  KEYS[1] job key
  KEYS[2] its lock
  ARGV[1] the lock's token

  Returns the counter; -1 when there is no such job, -2 when the lock is not ours (any more).
]]
if redis.call("EXISTS", KEYS[1]) == 0 then
  return -1
end
if redis.call("GET", KEYS[2]) ~= ARGV[1] then
  return -2
end
return redis.call("HINCRBY", KEYS[1], "stc", 1)
