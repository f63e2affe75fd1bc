-- GCRA: one number per quota, the theoretical arrival time (tat), in microseconds of this server's clock.
-- KEYS: one to several quotas of one request, with the same hash tag. It is charged to all of them or to none.
-- ARGV: 1 cost (-1 gives one request back), then for each quota: microseconds in which one request refills, burst.
-- Returns for each quota four numbers: allowed, remaining, microseconds until a request is allowed, microseconds until
-- the quota has one more request.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local cost = tonumber(ARGV[1])

local quotas, is_allowed = {}, true
for n, key in ipairs(KEYS) do
  local interval = tonumber(ARGV[2 * n])
  local quota = {key = key, interval = interval, tolerance = interval * tonumber(ARGV[2 * n + 1])}
  quota.tat = math.max(tonumber(redis.call('GET', key) or 0), now)
  quota.wait = quota.tat + interval * cost - quota.tolerance - now
  is_allowed = is_allowed and quota.wait <= 0
  quotas[n] = quota
end

local reply = {}
for _, quota in ipairs(quotas) do
  if is_allowed then
    quota.tat = math.max(quota.tat + quota.interval * cost, now)
    if quota.tat > now then
      redis.call('SET', quota.key, string.format('%.0f', quota.tat), 'PX', math.ceil((quota.tat - now) / 1000))
    else
      redis.call('DEL', quota.key)
    end
  end
  local left = math.max(quota.tolerance - (quota.tat - now), 0)
  local more = quota.tat > now and quota.interval - left % quota.interval or 0
  if quota.tat - now > quota.tolerance then more = quota.tat - now - quota.tolerance + quota.interval end
  reply[#reply + 1] = quota.wait <= 0 and 1 or 0
  reply[#reply + 1] = math.floor(left / quota.interval)
  reply[#reply + 1] = math.ceil(math.max(quota.wait, 0))
  reply[#reply + 1] = math.ceil(more)
end
return reply
