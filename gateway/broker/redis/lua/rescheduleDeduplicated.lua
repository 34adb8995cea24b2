--[[
  Runs right after a job with a deduplication id and `reschedule` may have been added: if a delayed job kept it out, that
  one waits anew, for as long as the one that was kept out would have.

  KEYS[1] <prefix>:<queue>:
  KEYS[2] the deduplication key
  ARGV[1] the id that the job has, or would have; empty: the one that was counted up last
  ARGV[2] the job's time, in ms
  ARGV[3] its delay, in ms
]]
local queue = KEYS[1]
local id = ARGV[1] ~= "" and ARGV[1] or redis.call("GET", queue .. "id")
local keeper = redis.call("GET", KEYS[2])
if not keeper or redis.call("EXISTS", queue .. id) == 1 or not redis.call("ZSCORE", queue .. "delayed", keeper) then
  return
end

-- Jobs of one millisecond have scores of their own, in the order in which they came.
local due = tonumber(ARGV[2]) + tonumber(ARGV[3])
local lowest, highest = due * 0x1000, due * 0x1000 + 0xfff
local last = redis.call("ZREVRANGEBYSCORE", queue .. "delayed", highest, lowest, "WITHSCORES", "LIMIT", 0, 1)
local score = last[2] and math.min(tonumber(last[2]) + 1, highest) or lowest

redis.call("HSET", queue .. keeper, "delay", ARGV[3])
redis.call("ZADD", queue .. "delayed", score, keeper)
local most = redis.call("HGET", queue .. "meta", "opts.maxLenEvents") or 10000
redis.call("XADD", queue .. "events", "MAXLEN", "~", most, "*", "event", "delayed", "jobId", keeper, "delay", due)
local first = redis.call("ZRANGE", queue .. "delayed", 0, 0, "WITHSCORES")
redis.call("ZADD", queue .. "marker", tonumber(first[2]) / 0x1000, "1")
