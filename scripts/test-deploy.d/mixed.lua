-- wrk's mixed load for the check `twenty` of scripts/test-deploy, at a constant rate: redirects and creates, on kept and on
-- new connections. wrk … URL -- KEY_FILE CODES_FILE RATE THREADS
--
-- Every response is counted by its status. A request without a response is one of wrk's socket errors.
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds, nanoseconds; } linnet_time; int clock_gettime(int, linnet_time *);")
local time = ffi.new("linnet_time")
local function milliseconds()
  ffi.C.clock_gettime(1, time)
  return tonumber(time.seconds) * 1000 + tonumber(time.nanoseconds) / 1e6
end

local creates, new_connections = 0.02, 0.02
local threads = {}

function setup(thread)
  thread:set("number", #threads + 1)
  table.insert(threads, thread)
end

function init(arguments)
  local file = assert(io.open(arguments[1]))
  key = file:read("*l")
  file:close()
  codes = {}
  for line in io.lines(arguments[2]) do codes[#codes + 1] = line end
  pause = 1000 * tonumber(arguments[4]) / tonumber(arguments[3])
  due = milliseconds()
  made, redirects, created, others = 0, 0, 0, 0
  math.randomseed(number * 7919)
  head = {["Host"] = "go.example.com"}
  last = {["Host"] = "go.example.com", ["Connection"] = "close"}
  for _, headers in ipairs({head, last}) do headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64)" end
end

-- The next request of this thread is due one pause after the one before. A thread that is late does not catch up.
function delay()
  local now = milliseconds()
  due = math.max(due + pause, now - 100)
  return math.max(0, math.floor(due - now))
end

function request()
  local headers = math.random() < new_connections and last or head
  if math.random() >= creates then
    return wrk.format("GET", "/" .. codes[math.random(#codes)], headers)
  end
  made = made + 1
  local with = {["Authorization"] = "Bearer " .. key, ["Content-Type"] = "application/json"}
  for name, value in pairs(headers) do with[name] = value end
  return wrk.format("POST", "/api/v1/urls", with, string.format('{"original_url":"https://target.example/%d/%d"}', number, made))
end

function response(status)
  if status == 302 then
    redirects = redirects + 1
  elseif status == 201 then
    created = created + 1
  else
    others = others + 1
    if others <= 20 then io.stderr:write(os.date("!%H:%M:%S"), " status ", status, "\n") end
  end
end

function done(summary)
  local sum = {redirects = 0, created = 0, others = 0}
  for _, thread in ipairs(threads) do
    for name, value in pairs(sum) do sum[name] = value + thread:get(name) end
  end
  local errors = summary.errors
  local seconds = summary.duration / 1e6
  io.write(string.format(
    '{"redirects": %d, "creates": %d, "other statuses": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "seconds": %d, "rate": %d}\n',
    sum.redirects, sum.created, sum.others, errors.connect, errors.read, errors.write, errors.timeout, seconds,
    (sum.redirects + sum.created + sum.others) / seconds))
end
