#!/bin/sh
# In the container this is /docker-entrypoint.d/40-follow-upstreams.sh. nginx asks for the addresses of its upstreams when it
# reads its configuration and never again (`server … resolve` came with 1.27.3), but on a network of containers a name is all
# replicas of a service, and those come and go: when the addresses change, nginx is told to read again. Names of LINNET_NGINX_RESOLVE
# and LINNET_NGINX_GATEWAY count; unix sockets and addresses never change.
set -eu

names=$(printf '%s\n' "${LINNET_NGINX_RESOLVE:-}" "${LINNET_NGINX_GATEWAY:-}" | tr -s ', ' '\n' | sed -n '/^unix:/d; s/:[0-9]*$//p' | sort -u)
[ -n "$names" ] || exit 0
pid_file=${LINNET_NGINX_PID:-/tmp/nginx.pid}

addresses() {
  for name in $names; do getent ahostsv4 "$name" | cut -d ' ' -f 1; done | sort -u | tr '\n' ' '
}

# What nginx is about to read.
seen=$(addresses)
(
  while sleep "${LINNET_NGINX_FOLLOW_S:-1}"; do
    now=$(addresses)
    # Without any address nginx would not take the configuration, and goes on with what it has.
    if [ -n "$now" ] && [ "$now" != "$seen" ] && [ -s "$pid_file" ]; then
      kill -HUP "$(cat "$pid_file")" && seen=$now
    fi
  done
) &
