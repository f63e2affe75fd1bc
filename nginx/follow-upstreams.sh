#!/bin/sh
# Reloads nginx when the addresses of its upstreams change. In the container it is
# /docker-entrypoint.d/40-follow-upstreams.sh.
#
# nginx resolves upstream names only when it reads its configuration (`server … resolve` needs 1.27.3). On a container
# network one name stands for all replicas of a service, which can be added and removed at any time. Only names in
# LINNET_NGINX_RESOLVE and LINNET_NGINX_GATEWAY are watched; unix sockets and addresses do not change.
set -eu

names=$(printf '%s\n' "${LINNET_NGINX_RESOLVE:-}" "${LINNET_NGINX_GATEWAY:-}" | tr -s ', ' '\n' | sed -n '/^unix:/d; s/:[0-9]*$//p' | sort -u)
[ -n "$names" ] || exit 0
pid_file=${LINNET_NGINX_PID:-/tmp/nginx.pid}

addresses() {
  for name in $names; do getent ahostsv4 "$name" | cut -d ' ' -f 1; done | sort -u | tr '\n' ' '
}

# The addresses with which nginx will start.
seen=$(addresses)
(
  while sleep "${LINNET_NGINX_FOLLOW_S:-1}"; do
    now=$(addresses)
    # nginx rejects a configuration in which no name resolves, so it keeps the previous one.
    if [ -n "$now" ] && [ "$now" != "$seen" ] && [ -s "$pid_file" ]; then
      kill -HUP "$(cat "$pid_file")" && seen=$now
    fi
  done
) &
