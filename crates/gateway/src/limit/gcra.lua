-- GCRA: one number per key, the theoretical arrival time (tat), in microseconds of this server's clock.
-- KEYS[1]: the key. ARGV: 1 microseconds in which one request refills, 2 burst, 3 cost (0 only peeks).
-- Returns {allowed, remaining, microseconds until a request is allowed, microseconds until full}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval = tonumber(ARGV[1])
local tolerance = interval * tonumber(ARGV[2])
local cost = tonumber(ARGV[3])

local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
-- A peek decides about one further request.
local next_tat = tat + interval * math.max(cost, 1)
local wait = next_tat - tolerance - now
if wait > 0 then
  return {0, 0, math.ceil(wait), math.ceil(tat - now)}
end
if cost > 0 then
  tat = next_tat
  redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000))
end
return {1, math.floor((tolerance - (tat - now)) / interval), 0, math.ceil(tat - now)}
