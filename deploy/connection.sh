# shellcheck shell=bash disable=SC2034,SC2154 # a part of deploy.sh, which sets and uses these variables
# How deploy.sh finds a server, connects to it and explains a connection that failed.

# target TEXT: sets user, host, port.
target() {
  [[ ${1:-} =~ ^(([a-z_][a-z0-9_-]*)@)?([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\])(:([0-9]{1,5}))?$ ]] \
    || die "'${1:-}' is not a server; write HOST, USER@HOST or USER@HOST:PORT" "$EX_USAGE"
  user=${BASH_REMATCH[2]:-linnet} host=${BASH_REMATCH[3]} port=${BASH_REMATCH[5]:-22}
  host=${host#[} host=${host%]}
  host_keys=yes
}

# remote COMMAND: runs it on the server over one shared connection; `fresh=yes` opens a separate one.
remote() {
  local -a options=(-o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=10 -o ServerAliveCountMax=3
    -o UserKnownHostsFile="$known_hosts" -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking="$host_keys" -o LogLevel=ERROR -p "$port")
  if [[ -n ${LINNET_SSH_KEY:-} ]]; then options+=(-i "$LINNET_SSH_KEY" -o IdentitiesOnly=yes); fi
  if [[ ${fresh:-} == yes ]]; then options+=(-o ControlPath=none)
  else options+=(-o ControlMaster=auto -o ControlPath="$work/ssh" -o ControlPersist=60); fi
  # shellcheck disable=SC2029 # a command of this script, with checked values
  ssh "${options[@]}" "$user@$host" "$1"
}

# As root: `linnet` uses sudo.
as_root() { if [[ $user == root ]]; then remote "$1"; else remote "sudo -n $1"; fi; }

# Explains a connection that failed; `$work/ssh-error` has ssh's message.
explain() {
  local text; text=$(<"$work/ssh-error")
  case $text in
    *'HOST IDENTIFICATION HAS CHANGED'*|*'Host key verification failed'*)
      if ssh-keygen -F "$([[ $port == 22 ]] && echo "$host" || echo "[$host]:$port")" -f "$known_hosts" >/dev/null 2>&1; then
        die "the host key of $host is not the one in $known_hosts; if you reinstalled the server, remove its line there, otherwise do not connect" "$EX_UNAVAILABLE"
      fi
      die "the host key of $host is not known; run \`deploy.sh init\` from this machine, or add the key to $known_hosts" "$EX_UNAVAILABLE" ;;
    *'Too many authentication failures'*) die "your SSH agent offered $host more keys than it accepts before the right one; name that with LINNET_SSH_KEY" "$EX_UNAVAILABLE" ;;
    *'Permission denied'*) die "$host accepts no key of yours for the user $user; name the key with LINNET_SSH_KEY, or another user" "$EX_UNAVAILABLE" ;;
    *'Could not resolve'*) die "the name $host has no address; check its spelling" "$EX_UNAVAILABLE" ;;
    *) die "$host cannot be reached over SSH on port $port (${text:-no answer}); check the address and the provider's firewall" "$EX_UNAVAILABLE" ;;
  esac
}

connect() {
  type -P ssh >/dev/null || die "ssh not found; install the OpenSSH client" "$EX_UNAVAILABLE"
  mkdir -p "$(dirname "$known_hosts")"
  remote true 2> "$work/ssh-error" || explain
  if [[ $user != root ]] && ! remote 'sudo -n true' 2>/dev/null; then
    die "the user $user may not use sudo without a password on $host; use another user, or root for \`init\`" "$EX_UNAVAILABLE"
  fi
}

# addresses NAME: prints the addresses of a name, one a line. macOS has no getent.
addresses() {
  if type -P getent >/dev/null; then { getent ahosts "$1" || true; } | awk '{print $1}' | sort -u
  elif type -P python3 >/dev/null; then
    python3 -c 'import socket, sys
try: print(*sorted({entry[4][0] for entry in socket.getaddrinfo(sys.argv[1], 80)}), sep="\n")
except OSError: pass' "$1"
  else die "this machine has neither getent nor python3 to look up $1; pass --dns-later" "$EX_UNAVAILABLE"; fi
}

check_dns() {
  local address; local -a ours wanted
  mapfile -t ours < <(addresses "$domain")
  mapfile -t wanted < <(addresses "$host")
  (( ${#ours[@]} )) || die "$domain has no address in DNS; check its spelling, add an A record with ${wanted[0]:-$host}, or pass --dns-later" "$EX_UNAVAILABLE"
  for address in "${ours[@]}"; do
    [[ $address != *:* ]] || die "$domain has the AAAA record $address, and the server serves only IPv4; remove that record, or pass --dns-later" "$EX_UNAVAILABLE"
    [[ " ${wanted[*]} " == *" $address "* ]] \
      || die "$domain leads to $address, and the server is ${wanted[*]:-$host}; correct its A record before a certificate is ordered, or pass --dns-later" "$EX_UNAVAILABLE"
  done
}
