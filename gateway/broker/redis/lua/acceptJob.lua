--[[
  Leave a job to whoever has been given its token: extend its lock once more, and mark it, so that nobody gives it back
  who finds its shard dead. Nothing happens when the lock is another one's by now.

  KEYS[1] the lock
  KEYS[2] the mark
  KEYS[3] set of jobs that the next check for stalled jobs takes
  ARGV[1] the token
  ARGV[2] how long the lock lasts, in ms
  ARGV[3] how long the mark lasts, in ms
  ARGV[4] the job

  Returns whether the lock is that of the token.
]]
if redis.call("GET", KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call("PEXPIRE", KEYS[1], ARGV[2])
redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[3])
redis.call("SREM", KEYS[3], ARGV[4])
return 1
