-- Requests the codes of BENCH_LIST in order. All request strings are built in advance, so each costs wrk one table lookup on either
-- side. BENCH_OFFSET (0 to 1) is where a round begins; each thread has its own part.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads - 1)
end

function init()
  local made, all, count = {}, {}, 0
  for code in io.lines(os.getenv("BENCH_LIST")) do
    local text = made[code]
    if not text then
      text = "GET /" .. code .. " HTTP/1.1\r\nHost: bench.local\r\n\r\n"
      made[code] = text
    end
    count = count + 1
    all[count] = text
  end
  requests, size = all, count
  position = math.floor((tonumber(os.getenv("BENCH_OFFSET")) + number / 2) * count) % count
end

function request()
  position = position + 1
  if position > size then position = 1 end
  return requests[position]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "errors": %d, "p99_ms": %f}\n', summary.requests,
    summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99) / 1e3))
end
