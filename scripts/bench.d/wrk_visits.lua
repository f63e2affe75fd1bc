-- Like wrk_paths.lua, with browsers' headers: fifty user agents in turn, each request with one of the referrers and languages.
-- Building a request costs wrk the same on either side.
local threads = {}

local systems = {
  "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64", "Linux; Android 10; K",
  "Linux; Android 14; SM-X700",
}
local referrers = {
  "", "", "", "https://www.google.com/", "https://t.co/Ab3dE", "https://www.reddit.com/r/links/", "https://news.ycombinator.com/",
}
local languages = { "en-US,en;q=0.9", "de-DE,de;q=0.9,en;q=0.7", "fr-FR,fr;q=0.9", "es-ES,es;q=0.8", "ja", "pt-BR,pt;q=0.9" }

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads - 1)
end

function init()
  codes, size = {}, 0
  local made = {}
  for code in io.lines(os.getenv("BENCH_LIST")) do
    local path = made[code]
    if not path then
      path = "GET /" .. code
      made[code] = path
    end
    size = size + 1
    codes[size] = path
  end
  position = math.floor((tonumber(os.getenv("BENCH_OFFSET")) + number / 2) * size) % size
  heads, kinds, kind = {}, 0, 0
  -- 7 and 50 are coprime, and the language changes after each round of agents, so all combinations occur.
  for turn = 0, 50 * 7 * 6 - 1 do
    local agent = turn % 50
    local system, major = systems[agent % 5 + 1], 133 + math.floor(agent / 5)
    local referrer = referrers[turn % 7 + 1]
    kinds = kinds + 1
    heads[kinds] = " HTTP/1.1\r\nHost: bench.local\r\nUser-Agent: Mozilla/5.0 (" .. system
      .. ") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/" .. major .. ".0.0.0 Safari/537.36\r\nAccept-Language: "
      .. languages[math.floor(turn / 50) % 6 + 1] .. (referrer ~= "" and "\r\nReferer: " .. referrer or "") .. "\r\n\r\n"
  end
end

function request()
  position = position + 1
  if position > size then position = 1 end
  kind = kind + 1
  if kind > kinds then kind = 1 end
  return codes[position] .. heads[kind]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "errors": %d, "p99_ms": %f}\n', summary.requests,
    summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99) / 1e3))
end
