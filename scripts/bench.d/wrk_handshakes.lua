-- A full TLS handshake for each request: the server closes the connection, and wrk resumes no session.
function init()
  text = "GET /robots.txt HTTP/1.1\r\nHost: bench.local\r\nConnection: close\r\n\r\n"
end

function request() return text end

function done(summary, latency)
  local e = summary.errors
  -- The end of the connection counts as a read error unless the response was complete.
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "errors": %d, "p99_ms": %f}\n', summary.requests,
    summary.duration / 1e6, e.connect + e.status + e.timeout, latency:percentile(99) / 1e3))
end
