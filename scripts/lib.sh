# shellcheck shell=bash disable=SC2034 # other scripts use these variables
# Functions for all scripts: messages, ports, waits, processes. Source it; it runs nothing.
#
# Invariants:
# - Messages go to stderr, so that a script's stdout remains usable as data.
# - A wait has a deadline and names what it waited for.
# - A process is stopped by its pid, checked against its start time, never by its name.

# Variables of the caller that would redirect a client of PostgreSQL or Redis, or change what a tool prints. PG_PORT and
# REDIS_PORT are options of scripts.
while IFS= read -r name; do
  case $name in PG_*|REDIS_PORT) ;; PG*|REDIS*) unset "$name" ;; esac
done < <(compgen -e)
unset name CDPATH GREP_OPTIONS POSIXLY_CORRECT COMPOSE_FILE COMPOSE_PROFILES COMPOSE_PROJECT_NAME COMPOSE_ENV_FILES

LINNET_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Exit codes of sysexits(3), as in the binaries.
EX_USAGE=64
EX_UNAVAILABLE=69

if [[ -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  c_bold=$'\e[1m' c_red=$'\e[31m' c_green=$'\e[32m' c_yellow=$'\e[33m' c_off=$'\e[0m'
else
  c_bold='' c_red='' c_green='' c_yellow='' c_off=''
fi

step() { printf '%s==> %s%s\n' "$c_bold" "$*" "$c_off" >&2; }
info() { printf '    %s\n' "$*" >&2; }
ok()   { printf '%s    %s%s\n' "$c_green" "$*" "$c_off" >&2; }
warn() { printf '%swarning: %s%s\n' "$c_yellow" "$*" "$c_off" >&2; }
fail() { printf '%serror: %s%s\n' "$c_red" "$*" "$c_off" >&2; }
# die MESSAGE [EXIT_CODE]
die()  { fail "$1"; exit "${2:-1}"; }

is_root() { [[ $(id -u) -eq 0 ]]; }

# Debian installs servers in sbin, which is not in an ordinary user's PATH.
find_binary() {
  local found
  found=$(PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" type -P "$1") || return 1
  printf '%s\n' "$found"
}

# Prints the `bin` directory of PostgreSQL 15 or newer: version $1 if given, otherwise the newest.
postgres_bin() {
  local want=${1:-} folder version best='' best_version=0 on_path
  for folder in /usr/lib/postgresql/*/bin; do
    [[ -x $folder/postgres && -x $folder/initdb ]] || continue
    version=${folder%/bin}; version=${version##*/}
    [[ $version =~ ^[0-9]+$ ]] || continue
    [[ -z $want || $version == "$want" ]] || continue
    if (( version >= 15 && version > best_version )); then best=$folder best_version=$version; fi
  done
  if [[ -z $best ]] && on_path=$(type -P postgres); then
    on_path=$(dirname "$(readlink -f "$on_path")")
    version=$("$on_path/postgres" --version | grep -oE '[0-9]+' | head -n 1)
    if [[ -x $on_path/initdb ]] && (( version >= 15 )) && [[ -z $want || $version == "$want" ]]; then
      best=$on_path
    fi
  fi
  [[ -n $best ]] || return 1
  printf '%s\n' "$best"
}

# Succeeds if a process listens on port $1 of 127.0.0.1 or of all addresses.
port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints the first free port from $1 on that is not among the other arguments.
free_port() {
  local port=$1 last=$(( $1 + 500 )) other; shift
  for (( ; port < last && port < 65536; port++ )); do
    for other in "$@"; do [[ $port == "$other" ]] && continue 2; done
    port_taken "$port" || { printf '%s\n' "$port"; return 0; }
  done
  return 1
}

# wait_for SECONDS DESCRIPTION COMMAND…: polls until the command succeeds; returns 1 after the deadline. The description
# completes "waiting for …". If `wait_pid` is set, it returns 2 as soon as that process has exited.
wait_for() {
  local seconds=$1 what=$2 end=$(( SECONDS + $1 )); shift 2
  until "$@" >/dev/null 2>&1; do
    if [[ -n ${wait_pid:-} ]] && ! kill -0 "$wait_pid" 2>/dev/null; then
      fail "the process exited while waiting for $what"
      return 2
    fi
    if (( SECONDS >= end )); then
      fail "timed out after $seconds s waiting for $what"
      return 1
    fi
    sleep 0.1
  done
}

# Prints the start time of process $1, in clock ticks after boot. With the pid it identifies a process; a pid is reused.
process_start() {
  local line
  { read -r line < "/proc/$1/stat"; } 2>/dev/null || return 1
  # The second field is the program's name in parentheses, with any characters: count from the last parenthesis.
  set -f; local -a fields; read -r -a fields <<< "${line##*) }"; set +f
  printf '%s\n' "${fields[19]}"
}

# note_pid FILE PID: writes pid and start time to FILE, for running_pid.
note_pid() { printf '%s %s\n' "$2" "$(process_start "$2" || echo 0)" > "$1"; }

# running_pid FILE: prints the pid in FILE if that process still runs.
running_pid() {
  local pid start
  [[ -r $1 ]] || return 1
  read -r pid start < "$1" || return 1
  [[ $pid =~ ^[0-9]+$ && $(process_start "$pid") == "$start" ]] || return 1
  printf '%s\n' "$pid"
}

# gone PID START: succeeds if that process has exited. A zombie counts as exited.
gone() {
  [[ $(process_start "$1") == "$2" ]] || return 0
  [[ $(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) == Z ]]
}

# stop_process NAME PID SIGNAL SECONDS: sends the signal and waits. After the deadline it kills and returns 1.
stop_process() {
  local name=$1 pid=$2 signal=$3 seconds=$4 start
  start=$(process_start "$pid") || return 0
  kill -s "$signal" "$pid" 2>/dev/null || return 0
  if ! wait_for "$seconds" "$name (pid $pid) to exit" gone "$pid" "$start"; then
    kill -s KILL "$pid" 2>/dev/null || true
    return 1
  fi
}

# cargo_profile NAME: prints Cargo's profile for NAME, which is a directory in target. The two differ for `debug`.
cargo_profile() {
  case $1 in
    local|release) printf '%s\n' "$1" ;;
    debug)         printf 'dev\n' ;;
    *)             die "PROFILE must be local, release or debug: '$1'" "$EX_USAGE" ;;
  esac
}

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# secret_file FILE BYTES: writes a random hexadecimal secret to FILE, mode 0600, unless the file exists.
secret_file() {
  [[ -s $1 ]] && return 0
  ( umask 077; random_hex "$2" > "$1.new" && mv -f "$1.new" "$1" )
}

show_tail() {
  [[ -s $1 ]] || { info "($1 is empty)"; return 0; }
  fail "last lines of $1:"
  tail -n "${2:-25}" "$1" | sed 's/^/    | /' >&2
}

# nginx_group: prints the group of nginx's worker processes, if this user may give files to it.
nginx_group() {
  is_root || return 0
  local user
  for user in www-data nginx nobody; do
    if id -u "$user" >/dev/null 2>&1; then id -g "$user"; return 0; fi
  done
}

# share_sockets DIR: only this user and nginx's worker processes can enter DIR, and sockets in it belong to nginx's group.
share_sockets() {
  local group; group=$(nginx_group)
  if [[ -n $group ]]; then chgrp "$group" "$1"; chmod 2750 "$1"; else chmod 700 "$1"; fi
}

# socket_folder DIR: prints a directory for unix sockets that only this user and nginx's worker processes can enter, and
# whose path is short and plain enough. This is DIR if possible, otherwise a directory elsewhere to which DIR becomes a
# link.
socket_folder() {
  local dir=$1 key outside
  mkdir -p "$(dirname "$dir")"
  # A socket's path has at most 107 bytes, its file name included.
  if (( ${#dir} <= 80 )) && [[ $dir =~ ^[0-9A-Za-z/._-]+$ && ! -L $dir ]]; then
    mkdir -p "$dir"; share_sockets "$dir"
    if ! is_root || setpriv --reuid nobody --regid "$(nginx_group)" --clear-groups test -x "$dir" 2>/dev/null; then
      printf '%s\n' "$dir"
      return 0
    fi
    rmdir "$dir" 2>/dev/null || true
  fi
  key=$(printf '%s' "$dir" | sha256sum | cut -c 1-12)
  if is_root; then outside=/run/linnet-$key; else outside=${XDG_RUNTIME_DIR:-/tmp}/linnet-$(id -u)-$key; fi
  # Another user's directory of that name must not get our sockets.
  mkdir -m 700 "$outside" 2>/dev/null || [[ -O $outside && ! -L $outside ]] || return 1
  share_sockets "$outside"
  ln -sfn "$outside" "$dir"
  printf '%s\n' "$outside"
}

# public_address HOST: sets listen_host (for nginx), shown_host (in URLs) and local_host (for requests of this machine). HOST
# is an IP address or a name that resolves to one.
public_address() {
  local host=${1#[} found; host=${host%]}
  if [[ $host != *:* && ! $host =~ ^[0-9]+(\.[0-9]+){3}$ ]]; then
    found=$(getent ahostsv4 "$host" | awk '{ print $1; exit }') || true
    [[ -n $found ]] || die "HOST=$1 is neither an IP address nor a name that resolves to one; choose another with: HOST=127.0.0.1" "$EX_USAGE"
    listen_host=$found shown_host=$host local_host=$found
    return 0
  fi
  # Without IPv6, a machine resolves no IPv4 address as a mapped one.
  local family=ahostsv4
  if [[ $host == *:* ]]; then family=ahostsv6; fi
  if ! getent "$family" "$host" >/dev/null; then die "HOST=$1 is not an IP address" "$EX_USAGE"; fi
  case $host in
    0.0.0.0) listen_host=$host shown_host=localhost local_host=127.0.0.1 ;;
    127.*)   listen_host=$host shown_host=localhost local_host=$host ;;
    ::)      listen_host='[::]' shown_host=localhost local_host='[::1]' ;;
    *:*)     listen_host="[$host]" shown_host="[$host]" local_host="[$host]" ;;
    *)       listen_host=$host shown_host=$host local_host=$host ;;
  esac
}

# The scripts call only servers of this machine, so neither a proxy nor ~/.curlrc applies.
curl() { command curl -q --noproxy '*' "$@"; }

# http_ok URL [SOCKET]: succeeds if a GET returns 2xx within 2 s.
http_ok() { curl -fsS -m 2 -o /dev/null ${2:+--unix-socket "$2"} "$1" 2>/dev/null; }

# native_prometheus DIR: copies monitoring/prometheus to DIR. Targets come from DIR/targets/NAME.yml instead of
# container names; rules and relabeling are the same.
native_prometheus() {
  mkdir -p "$1/targets" "$1/rules"
  cp "$LINNET_ROOT"/monitoring/prometheus/rules/*.yml "$1/rules/"
  sed -E 's/^    dns_sd_configs: \[\{names: \[([a-z-]+)\],.*$/    file_sd_configs: [{files: [targets\/\1.yml]}]/' \
    "$LINNET_ROOT/monitoring/prometheus/prometheus.yml" > "$1/prometheus.yml"
}

# native_targets DIR: prints the NAME of each file that the configuration of native_prometheus reads.
native_targets() { sed -nE 's/^    file_sd_configs: .*targets\/([a-z-]+)\.yml.*/\1/p' "$1/prometheus.yml"; }

# native_alertmanager WEBHOOK: prints the configuration for an Alertmanager before 0.28, which cannot read the address
# from a file.
native_alertmanager() { sed -E "s|webhook_url_file: .*|webhook_url: $1|" "$LINNET_ROOT/monitoring/alertmanager/alertmanager.yml"; }

# cargo_tool CRATE VERSION: installs a program of crates.io once, below ~/.cache/linnet/tools, and prints its folder.
cargo_tool() {
  local root=${XDG_CACHE_HOME:-$HOME/.cache}/linnet/tools/$1-$2 build
  if [[ ! -e $root/.crates.toml ]]; then
    info "installing $1 $2 in $root (once, some minutes)"
    build=$(mktemp -d "${TMPDIR:-/tmp}/linnet-$1.XXXXXX")
    # The debug profile builds in half the time, and these programs mostly wait for others.
    cargo install --locked --debug --quiet --root "$root" --target-dir "$build" "$1@$2" >&2 \
      || { rm -rf -- "$build"; die "$1 $2 could not be installed" "$EX_UNAVAILABLE"; }
    rm -rf -- "$build"
  fi
  printf '%s\n' "$root/bin"
}
