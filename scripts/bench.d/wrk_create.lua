-- Shortens a new target with each request. BENCH_SEED distinguishes rounds, the thread's number threads.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads - 1)
end

function init()
  local target = string.format('{"original_url":"https://www.example.com/articles/%s-%d-', os.getenv("BENCH_SEED"), number)
  head = "POST /api/v1/urls HTTP/1.1\r\nHost: bench.local\r\nAuthorization: Bearer " .. os.getenv("BENCH_KEY")
    .. "\r\nContent-Type: application/json\r\nContent-Length: " .. (#target + 12 + 2) .. "\r\n\r\n" .. target
  count = 0
end

function request()
  count = count + 1
  return head .. string.format('%012d"}', count)
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "errors": %d, "p99_ms": %f}\n', summary.requests,
    summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99) / 1e3))
end
