--[[
  Find the queues that the children of a job are in, and their children, however deep: as BullMQ's scripts find them
  when they remove a job with its children.

  KEYS[1] job key
  ARGV[1] "1": only through children that are not finished, as removeUnprocessedChildren goes

  Returns the base keys of the queues, as "bull:mails:". The id begins after a key's last colon, as in BullMQ's scripts.
]]
local unfinished = ARGV[1] == "1"
local pending, seen = {KEYS[1]}, {[KEYS[1]] = true}
local bases, known = {}, {}

local function visit(key)
  if seen[key] then
    return
  end
  seen[key] = true
  pending[#pending + 1] = key
  local base = string.match(key, "^(.*:)") or ""
  if not known[base] then
    known[base] = true
    bases[#bases + 1] = base
  end
end

while #pending > 0 do
  local parent = table.remove(pending)
  for _, key in ipairs(redis.call("SMEMBERS", parent .. ":dependencies")) do
    visit(key)
  end
  if not unfinished then
    for _, key in ipairs(redis.call("HKEYS", parent .. ":processed")) do
      visit(key)
    end
    for _, key in ipairs(redis.call("HKEYS", parent .. ":failed")) do
      visit(key)
    end
    for _, key in ipairs(redis.call("ZRANGE", parent .. ":unsuccessful", 0, -1)) do
      visit(key)
    end
  end
end
return bases
