--[[
  Do once what adding and working jobs takes, and leave nothing behind.

  A server that has no memory left, has no replica to write to, cannot write to its disk, or does not let the user do it,
  refuses the first of these.

    KEYS[1] a key that nobody else has
]]
for _, call in ipairs({
    {"SET", KEYS[1], "", "PX", 1000},
    {"HSET", KEYS[1], "f", ""},
    {"LPUSH", KEYS[1], ""},
    {"SADD", KEYS[1], ""},
    {"ZADD", KEYS[1], 0, ""},
    {"XADD", KEYS[1], "*", "f", ""},
}) do
    redis.call(unpack(call))
    redis.call("DEL", KEYS[1])
end
