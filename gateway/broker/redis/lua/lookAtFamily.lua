--[[
  Look which jobs have children, and whether workers hold some.

  KEYS[1...] job keys
  ARGV[1] "1": only children that are not finished count

  Returns how many of them workers hold, and the keys of those that have children.
]]
local held, parents = 0, {}
for _, key in ipairs(KEYS) do
  held = held + redis.call("EXISTS", key .. ":lock")
  local children = {key .. ":dependencies", key .. ":processed", key .. ":failed", key .. ":unsuccessful"}
  if redis.call("EXISTS", unpack(children, 1, ARGV[1] == "1" and 1 or 4)) > 0 then
    parents[#parents + 1] = key
  end
end
return {held, parents}
