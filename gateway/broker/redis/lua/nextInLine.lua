--[[
  Find the job of a queue that is next in line, and since when it waits: since it was added, or since its delay was over.

  KEYS[1] the list of those that wait
  KEYS[2] the list of those that an old version has paused
  KEYS[3] the sorted set of those with a priority
  KEYS[4] meta
  ARGV[1] what the keys of jobs begin with, as "bull:mails:"

  Returns the earliest of these times, in ms since 1970, or -1 where no job waits; and 1 where the queue is paused, or 0.
]]
local LARGEST = 65536 -- bytes of options that are looked into
local earliest = -1
local function look(id)
  local key = id and ARGV[1] .. id
  local since = key and tonumber(redis.call("HGET", key, "timestamp") or "")
  if not since then
    return
  end
  -- What stands in the hash as delay is 0 since it is over.
  if redis.call("HSTRLEN", key, "opts") <= LARGEST then
    local isJson, opts = pcall(cjson.decode, redis.call("HGET", key, "opts") or "")
    local delay = isJson and type(opts) == "table" and tonumber(opts["delay"])
    since = since + (delay or 0)
  end
  if earliest < 0 or since < earliest then
    earliest = since
  end
end
look(redis.call("LINDEX", KEYS[1], -1))
look(redis.call("LINDEX", KEYS[2], -1))
look(redis.call("ZRANGE", KEYS[3], 0, 0)[1])
return {earliest, redis.call("HEXISTS", KEYS[4], "paused")}
