--[[
  Runs right before a job that may be there already is added as a child of a flow: if its former parent is gone, it is
  free for the new one. The script that adds it would leave it without any.

    KEYS[1] the child's hash
    KEYS[2] the hash of its parent in the flow
]]
local child, parent = KEYS[1], KEYS[2]
local former = redis.call("HGET", child, "parentKey")
if former and former ~= parent and redis.call("EXISTS", former) == 0 and redis.call("EXISTS", parent) == 1 then
  redis.call("HDEL", child, "parentKey", "parent")
end
