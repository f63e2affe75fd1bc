-- What each log record becomes before it goes to Loki: the line as it came, and beside it service, level, colour and the ids of
-- request and trace.
--
-- Levels are five, whatever a program calls them: trace, debug, info, warn, error. So a question for `level="error"` finds all.
-- Lua 5.1 (Fluent Bit has LuaJIT); monitoring/tests/test_normalise.py runs it.

local LEVELS = {
  trace = "trace",
  debug = "debug", debug1 = "debug", debug2 = "debug", debug3 = "debug", debug4 = "debug", debug5 = "debug",
  info = "info", notice = "info", log = "info", statement = "info", detail = "info", hint = "info", context = "info",
  location = "info", query = "info", information = "info",
  warn = "warn", warning = "warn",
  err = "error", error = "error", eror = "error", crit = "error", critical = "error", alert = "error", emerg = "error",
  fatal = "error", panic = "error",
}

-- Redis marks its lines with one sign after the time.
local REDIS = { ["."] = "debug", ["-"] = "debug", ["*"] = "info", ["#"] = "warn" }

local function known(word)
  return word and LEVELS[string.lower(tostring(word))] or nil
end

-- nginx's access log has no level but a status.
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

-- level=warn, as Prometheus and its kind write it; [error], as nginx's error log and Fluent Bit do.
local function of_text(line)
  return known(line:match("level=\"?(%a+)")) or known(line:match("%[%s*(%a+)%s*%]"))
end

local function level_of(service, record, line)
  local level = known(record["level"]) or known(record["lvl"])
  if level then return level end
  if service == "postgres" then return of_postgres(line) or "info" end
  if service == "redis" then return of_redis(line) or "info" end
  -- Only what was JSON has a status.
  return of_status(record["status"]) or of_text(line) or "info"
end

-- An id is left out when it is empty.
local function id(value)
  if type(value) ~= "string" or value == "" or value == "-" then return nil end
  return value
end

local function text(value, default)
  if type(value) ~= "string" or value == "" then return default end
  return value
end

function normalise(tag, timestamp, record)
  local line = record["log"]
  if type(line) ~= "string" then line = tostring(line or "") end
  line = line:gsub("[\r\n]+$", "")
  -- An empty line tells nothing.
  if line:match("^%s*$") then return -1, timestamp, record end
  -- Without Compose's label the name of the container must do: /linnet-nginx-1.
  local service = text(record["com.docker.compose.service"], nil)
    or text(record["container_name"], "unknown"):gsub("^/", ""):gsub("%-%d+$", "")
  return 2, timestamp, {
    log = line,
    service = service,
    level = level_of(service, record, line),
    colour = text(record["linnet.colour"], "none"),
    request_id = id(record["request_id"]),
    trace_id = id(record["trace_id"]),
  }
end
