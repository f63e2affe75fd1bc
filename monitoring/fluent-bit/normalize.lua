-- Reduces each log record to the fields that Loki stores: the unchanged line, service, level, color, request id, trace
-- id.
--
-- Every program's levels are mapped to five: trace, debug, info, warn, error. A query for `level="error"` finds all
-- errors. Lua 5.1, because Fluent Bit embeds LuaJIT. monitoring/tests/test_normalize.py tests it.

local LEVELS = {
  trace = "trace",
  debug = "debug", debug1 = "debug", debug2 = "debug", debug3 = "debug", debug4 = "debug", debug5 = "debug",
  info = "info", notice = "info", log = "info", statement = "info", detail = "info", hint = "info", context = "info",
  location = "info", query = "info", information = "info",
  warn = "warn", warning = "warn",
  err = "error", error = "error", eror = "error", crit = "error", critical = "error", alert = "error", emerg = "error",
  fatal = "error", panic = "error",
}

-- Redis writes one character for the level after the time.
local REDIS = { ["."] = "debug", ["-"] = "debug", ["*"] = "info", ["#"] = "warn" }

local function known(word)
  return word and LEVELS[string.lower(tostring(word))] or nil
end

-- nginx's access log has a status instead of a level.
local function of_status(status)
  status = tonumber(status)
  if not status then return nil end
  if status >= 500 then return "error" end
  if status >= 400 then return "warn" end
  return "info"
end

-- 2026-11-21 19:28:24.864 UTC [17] ERROR:  deadlock detected
local function of_postgres(line)
  return known(line:match("%]%s+(%u+%d?):%s") or line:match("^(%u+%d?):%s"))
end

-- 1:M 21 Nov 2026 19:28:24.864 * Ready to accept connections
local function of_redis(line)
  return REDIS[line:match("^%d+:%a %d+ %a+ %d+ [%d:.]+ ([.%-*#]) ")]
end

-- level=warn: Prometheus and its exporters. [error]: nginx's error log and Fluent Bit.
local function of_text(line)
  return known(line:match("level=\"?(%a+)")) or known(line:match("%[%s*(%a+)%s*%]"))
end

-- How the programs of Rust and Go die: in text to standard error, past the log.
local DEATHS = {
  "^thread .* panicked at", "^thread .* has overflowed its stack", "^fatal runtime error: ", "^memory allocation of %d+ bytes failed",
  "^panic: ", "^fatal error: ", "^runtime: goroutine stack exceeds", "^SIG%u+: ",
}

local function of_death(line)
  for _, pattern in ipairs(DEATHS) do
    if line:match(pattern) then return "error" end
  end
  return nil
end

local function level_of(service, record, line)
  local level = known(record["level"]) or known(record["lvl"])
  if level then return level end
  if service == "postgres" then return of_postgres(line) or "info" end
  if service == "redis" then return of_redis(line) or "info" end
  -- Only JSON lines have a status.
  return of_status(record["status"]) or of_death(line) or of_text(line) or "info"
end

-- Returns nil for an empty id.
local function id(value)
  if type(value) ~= "string" or value == "" or value == "-" then return nil end
  return value
end

local function text(value, default)
  if type(value) ~= "string" or value == "" then return default end
  return value
end

function normalize(tag, timestamp, record)
  local line = record["log"]
  if type(line) ~= "string" then line = tostring(line or "") end
  line = line:gsub("[\r\n]+$", "")
  -- Drop empty lines.
  if line:match("^%s*$") then return -1, timestamp, record end
  -- Without Compose's label, derive the service from the container's name: /linnet-nginx-1.
  local service = text(record["com.docker.compose.service"], nil)
    or text(record["container_name"], "unknown"):gsub("^/", ""):gsub("%-%d+$", "")
  -- The color is a label of its own.
  service = service:gsub("%-blue$", ""):gsub("%-green$", "")
  return 2, timestamp, {
    log = line,
    service = service,
    level = level_of(service, record, line),
    color = text(record["linnet.color"], "none"),
    request_id = id(record["request_id"]),
    trace_id = id(record["trace_id"]),
  }
end
