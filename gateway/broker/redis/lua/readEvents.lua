--[[
  Read the next entries of a stream, few where they are large: their sizes are not known before they are read, so that it
  takes more and more of them while they are small.

  KEYS[1] stream
  ARGV[1] id of the last entry that was read
  ARGV[2] the most entries to read
  ARGV[3] bytes after which it stops

  Returns the id of the oldest entry of all, or nil; 1 when there may be more than were read, else 0; and the entries.
]]
local most, bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local oldest = redis.call("XRANGE", KEYS[1], "-", "+", "COUNT", 1)[1]
local after, entries, size, step, more = ARGV[1], {}, 0, 1, 1
while more == 1 and #entries < most and size < bytes do
  local some = redis.call("XRANGE", KEYS[1], "(" .. after, "+", "COUNT", step)
  for _, entry in ipairs(some) do
    entries[#entries + 1] = entry
    for _, text in ipairs(entry[2]) do
      size = size + #text
    end
  end
  if #some < step then
    more = 0
  else
    after = some[#some][1]
    step = math.min(16, most, 2 * step, math.floor(bytes * #entries / (size + 1)) + 1)
  end
end
return {oldest and oldest[1], more, entries}
