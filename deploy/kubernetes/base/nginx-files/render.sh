#!/bin/sh
# Renders linnet.conf.template. POSIX sh: in the container it is /docker-entrypoint.d/30-linnet.sh, which the image runs
# before nginx; natively scripts/service runs it. Lists become lines here, because envsubst has no loops.
#
# Required, either both lists or the directory:
#   LINNET_NGINX_RESOLVE           the shorteners' resolve listeners, `unix:/path.sock` or `host:port`, comma-separated
#   LINNET_NGINX_GATEWAY           the gateways' listeners, in the same form
#   LINNET_NGINX_SLOTS             a directory with ten slots for each of the two and one for refusals (nginx/slots.sh)
# Optional, with defaults:
#   LINNET_NGINX_LISTEN            addresses to listen on, comma-separated (8080)
#   LINNET_NGINX_LISTEN_OPTIONS    (reuseport deferred backlog=4096)
#   LINNET_NGINX_TRUSTED_PROXIES   address ranges whose X-Forwarded-For and X-Forwarded-Proto are trusted (none)
#   LINNET_NGINX_PROXY_CHAIN       `on` skips all trusted addresses at the end of X-Forwarded-For, for several proxies in a row;
#                                  `off` takes the last address, which the proxy itself has seen (off)
#   LINNET_NGINX_UNLIMITED         address ranges exempt from all limits (127.0.0.0/8,::1/128: the machine itself)
#   LINNET_NGINX_WORKER_CONNECTIONS  connections of one worker process, those to upstreams included (1664)
#   LINNET_NGINX_GATEWAY_REQUESTS  concurrent requests to /api/ of all clients, event streams included (1024)
#   LINNET_NGINX_COSTLY_REDIRECTS  concurrent redirects of requests of 2,000 bytes or more, and of HTTP/2; one address may
#                                  have an eighth (256)
#   LINNET_NGINX_GATEWAY_CONNECTIONS  connections to each gateway, or to all slots together (4096)
#   LINNET_NGINX_VERSION           nginx's version, such as 1.30.1 (that of the nginx in PATH)
#                                  An address in the following is an IPv4 address or an IPv6 /64
#   LINNET_NGINX_CONNECTIONS_PER_ADDRESS  concurrent requests to /api/ from one address, event streams included (512)
#   LINNET_NGINX_BODIES_PER_ADDRESS  concurrent requests to /api/ with a body from one address (128)
#   LINNET_NGINX_CONNECTIONS_PER_SITE  the same from one IPv6 /48 (2048)
#   LINNET_NGINX_API_RATE          rate of requests to /api/ from one address (200r/s); `off` disables the limit
#   LINNET_NGINX_API_BURST         its burst (400)
#   LINNET_NGINX_API_SITE_RATE     rate of requests to /api/ from one IPv6 /48 (800r/s)
#   LINNET_NGINX_API_SITE_BURST    its burst (1600)
#   LINNET_NGINX_RESOLVE_RATE      the same for redirects, with the limit of concurrent requests. Off by default: the
#                                  limiter's lock costs 2 µs of a redirect's 20 µs, many visitors share an address, and
#                                  the shortener limits misses itself
#   LINNET_NGINX_RESOLVE_BURST     its burst (2000)
#   LINNET_NGINX_RESOLVE_SITE_RATE, LINNET_NGINX_RESOLVE_SITE_BURST  the same from one IPv6 /48 (four times the above)
#   LINNET_NGINX_RESOLVE_LOG_SAMPLE  share of successful redirects that is logged (1%)
#   LINNET_NGINX_ACCESS_LOG (/dev/stdout), LINNET_NGINX_ERROR_LEVEL (alert), LINNET_NGINX_TMP (/tmp)
#   LINNET_NGINX_REFUSALS          where nginx reports its own 429s, which only it sees: the gateway's refusals_listen,
#                                  `host:port` (UDP) or `unix:/path.sock` (that of the slots, or none: not counted)
#   LINNET_NGINX_STATUS_LISTEN     address of /stub_status for the metrics exporter (none); keep it private
#   LINNET_NGINX_GRAFANA           Grafana's `host:port` for /grafana/ (none); nginx also runs while Grafana is down
#   LINNET_NGINX_RESOLVER          name server for Grafana's host name (127.0.0.11)
#   LINNET__PUBLIC__BASE_URL, LINNET__PUBLIC__PROBLEM_TYPES_URL  the same as for the gateway: the types of nginx's own
#                                  problems begin with the latter (by default the former and /problems)
#   LINNET_NGINX_TLS               `on` serves HTTPS, and redirects LINNET_NGINX_LISTEN to it; `off` if another proxy does (off)
#   LINNET_NGINX_TLS_LISTEN        addresses of HTTPS, comma-separated (8443)
#   LINNET_NGINX_TLS_PORT          the public port of HTTPS, for the redirects (443)
#   LINNET_NGINX_CERTIFICATE       folder with cert.pem and key.pem, read at each handshake: a changed symlink takes
#                                  effect without a reload (/certificates/live)
#   LINNET_NGINX_CHALLENGES        folder whose .well-known/acme-challenge/ is served over HTTP (/challenges)
#   LINNET_NGINX_HSTS              value of Strict-Transport-Security, once the folder has a file `hsts`; `off` for none
#                                  (max-age=63072000)
#   LINNET_NGINX_OPENSSL           version of OpenSSL, such as 3.5.1 (that of the nginx in PATH)
#   LINNET_NGINX_TEMPLATE          (linnet.conf.template next to this script, or in /etc/nginx)
#   LINNET_NGINX_OUT               (/etc/nginx/conf.d/linnet.conf)
set -eu

bad() { printf 'nginx/render.sh: %s\n' "$1" >&2; exit 64; }

# Values go into a configuration file, so no character that could end a directive is allowed.
check() {
  case $2 in
    *[!0-9A-Za-z_.:/,\[\]\ %=@+~-]*) bad "$1 contains a character that is not allowed: $2" ;;
  esac
}

# Files are in quotes in the configuration, so their paths may have blanks and letters of any script.
check_file() {
  case $2 in
    *[\"\$\\]* | *"
"*) bad "$1 contains a character that is not allowed: $2" ;;
  esac
}

# each FORMAT LIST: prints the format once for each element of a comma-separated list.
each() (
  format=$1
  set -f
  IFS=', '
  # Splitting the list is the purpose.
  # shellcheck disable=SC2086
  set -- $2
  # The format comes from this script.
  # shellcheck disable=SC2059
  for element in "$@"; do printf "$format\n" "$element"; done
)

: "${LINNET_NGINX_GATEWAY_CONNECTIONS:=4096}"
case $LINNET_NGINX_GATEWAY_CONNECTIONS in '' | *[!0-9]*) bad "LINNET_NGINX_GATEWAY_CONNECTIONS must be a number: $LINNET_NGINX_GATEWAY_CONNECTIONS" ;; esac
connections_each=$LINNET_NGINX_GATEWAY_CONNECTIONS
if [ -n "${LINNET_NGINX_SLOTS:-}" ]; then
  [ -z "${LINNET_NGINX_RESOLVE:-}${LINNET_NGINX_GATEWAY:-}" ] \
    || bad "LINNET_NGINX_SLOTS excludes LINNET_NGINX_RESOLVE and LINNET_NGINX_GATEWAY; unset either"
  # ten GROUP: lists the ten slots of the group.
  ten() { for index in 0 1 2 3 4 5 6 7 8 9; do printf 'unix:%s/%s-%s,' "$LINNET_NGINX_SLOTS" "$1" "$index"; done; }
  LINNET_NGINX_RESOLVE=$(ten resolve) LINNET_NGINX_GATEWAY=$(ten web)
  : "${LINNET_NGINX_REFUSALS=unix:$LINNET_NGINX_SLOTS/refusals}"
  # nginx selects the slots in turn and skips a full one, so all slots together have the whole number.
  connections_each=$(( LINNET_NGINX_GATEWAY_CONNECTIONS / 10 ))
  [ "$connections_each" -gt 0 ] || bad "LINNET_NGINX_GATEWAY_CONNECTIONS must be at least 10, one for each slot: $LINNET_NGINX_GATEWAY_CONNECTIONS"
fi
: "${LINNET_NGINX_RESOLVE:?must list the resolve listeners of the shorteners}" "${LINNET_NGINX_GATEWAY:?must list the listeners of the gateways}"
: "${LINNET_NGINX_LISTEN:=8080}" "${LINNET_NGINX_LISTEN_OPTIONS=reuseport deferred backlog=4096}"
: "${LINNET_NGINX_TRUSTED_PROXIES:=}" "${LINNET_NGINX_PROXY_CHAIN:=off}"
: "${LINNET_NGINX_UNLIMITED=127.0.0.0/8,::1/128}"
: "${LINNET_NGINX_CONNECTIONS_PER_ADDRESS:=512}"
: "${LINNET_NGINX_CONNECTIONS_PER_SITE:=2048}" "${LINNET_NGINX_BODIES_PER_ADDRESS:=128}"
: "${LINNET_NGINX_WORKER_CONNECTIONS:=1664}" "${LINNET_NGINX_GATEWAY_REQUESTS:=1024}"
: "${LINNET_NGINX_COSTLY_REDIRECTS:=256}"
case $LINNET_NGINX_COSTLY_REDIRECTS in '' | *[!0-9]*) bad "LINNET_NGINX_COSTLY_REDIRECTS must be a number: $LINNET_NGINX_COSTLY_REDIRECTS" ;; esac
[ "$LINNET_NGINX_COSTLY_REDIRECTS" -ge 8 ] || bad "LINNET_NGINX_COSTLY_REDIRECTS must be at least 8, one for each eighth: $LINNET_NGINX_COSTLY_REDIRECTS"
: "${LINNET_NGINX_API_RATE:=200r/s}" "${LINNET_NGINX_API_BURST:=400}"
: "${LINNET_NGINX_API_SITE_RATE:=800r/s}" "${LINNET_NGINX_API_SITE_BURST:=1600}"
: "${LINNET_NGINX_RESOLVE_RATE:=off}" "${LINNET_NGINX_RESOLVE_BURST:=2000}"
if [ "$LINNET_NGINX_RESOLVE_RATE" = off ]; then
  LINNET_NGINX_RESOLVE_SITE_RATE=off LINNET_NGINX_RESOLVE_SITE_BURST=''
else
  case ${LINNET_NGINX_RESOLVE_RATE%%r/*}$LINNET_NGINX_RESOLVE_BURST in
    '' | *[!0-9]*) bad "LINNET_NGINX_RESOLVE_RATE and LINNET_NGINX_RESOLVE_BURST must be like 500r/s and 2000" ;;
  esac
  : "${LINNET_NGINX_RESOLVE_SITE_RATE:=$(( ${LINNET_NGINX_RESOLVE_RATE%%r/*} * 4 ))r/${LINNET_NGINX_RESOLVE_RATE##*/}}"
  : "${LINNET_NGINX_RESOLVE_SITE_BURST:=$(( LINNET_NGINX_RESOLVE_BURST * 4 ))}"
fi
: "${LINNET_NGINX_RESOLVE_LOG_SAMPLE:=1%}"
: "${LINNET_NGINX_ACCESS_LOG:=/dev/stdout}" "${LINNET_NGINX_ERROR_LEVEL:=alert}" "${LINNET_NGINX_TMP:=/tmp}"
: "${LINNET_NGINX_REFUSALS:=}"
: "${LINNET_NGINX_STATUS_LISTEN:=}" "${LINNET_NGINX_GRAFANA:=}" "${LINNET_NGINX_RESOLVER:=127.0.0.11}"
: "${LINNET_NGINX_TLS:=off}" "${LINNET_NGINX_TLS_LISTEN:=8443}" "${LINNET_NGINX_TLS_PORT:=443}" "${LINNET_NGINX_HSTS:=max-age=63072000}"
: "${LINNET_NGINX_CERTIFICATE:=/certificates/live}" "${LINNET_NGINX_CHALLENGES:=/challenges}"
: "${LINNET_NGINX_OUT:=/etc/nginx/conf.d/linnet.conf}"
if [ -z "${LINNET_NGINX_TEMPLATE:-}" ]; then
  LINNET_NGINX_TEMPLATE=$(dirname "$0")/linnet.conf.template
  [ -r "$LINNET_NGINX_TEMPLATE" ] || LINNET_NGINX_TEMPLATE=/etc/nginx/linnet.conf.template
fi

for name in RESOLVE GATEWAY LISTEN LISTEN_OPTIONS WORKER_CONNECTIONS GATEWAY_REQUESTS GATEWAY_CONNECTIONS TRUSTED_PROXIES UNLIMITED CONNECTIONS_PER_ADDRESS CONNECTIONS_PER_SITE BODIES_PER_ADDRESS COSTLY_REDIRECTS \
  API_RATE API_BURST API_SITE_RATE API_SITE_BURST \
  RESOLVE_RATE RESOLVE_BURST RESOLVE_SITE_RATE RESOLVE_SITE_BURST RESOLVE_LOG_SAMPLE ERROR_LEVEL REFUSALS STATUS_LISTEN GRAFANA RESOLVER \
  TLS TLS_LISTEN TLS_PORT; do
  eval "check LINNET_NGINX_$name \"\$LINNET_NGINX_$name\""
done
check_file LINNET_NGINX_ACCESS_LOG "$LINNET_NGINX_ACCESS_LOG"
check_file LINNET_NGINX_TMP "$LINNET_NGINX_TMP"
check_file LINNET_NGINX_CERTIFICATE "$LINNET_NGINX_CERTIFICATE"
check_file LINNET_NGINX_CHALLENGES "$LINNET_NGINX_CHALLENGES"
check_file LINNET_NGINX_HSTS "$LINNET_NGINX_HSTS"
LINNET_NGINX_PROBLEM_TYPES=${LINNET__PUBLIC__PROBLEM_TYPES_URL:-${LINNET__PUBLIC__BASE_URL:-http://localhost:8080}/problems}
check LINNET__PUBLIC__PROBLEM_TYPES_URL "$LINNET_NGINX_PROBLEM_TYPES"
case $LINNET_NGINX_PROBLEM_TYPES in
  http://*[\ ,]* | https://*[\ ,]* | */) bad "LINNET__PUBLIC__PROBLEM_TYPES_URL contains a character that is not allowed: $LINNET_NGINX_PROBLEM_TYPES" ;;
  http://* | https://*) ;;
  *) bad "LINNET__PUBLIC__PROBLEM_TYPES_URL and LINNET__PUBLIC__BASE_URL must begin with http:// or https://: $LINNET_NGINX_PROBLEM_TYPES" ;;
esac

LINNET_NGINX_RESOLVE_SERVERS=$(each '    server %s max_fails=0;' "$LINNET_NGINX_RESOLVE")
LINNET_NGINX_GATEWAY_SERVERS=$(each "    server %s max_fails=0 max_conns=$connections_each;" "$LINNET_NGINX_GATEWAY")
LINNET_NGINX_LISTEN_LINES=$(each "    listen %s default_server $LINNET_NGINX_LISTEN_OPTIONS;" "$LINNET_NGINX_LISTEN")
LINNET_NGINX_TRUSTED_GEO=$(each '    %s 1;' "$LINNET_NGINX_TRUSTED_PROXIES")
LINNET_NGINX_UNLIMITED_GEO=$(each '    %s 1;' "$LINNET_NGINX_UNLIMITED")
case $LINNET_NGINX_PROXY_CHAIN in on | off) ;; *) bad "LINNET_NGINX_PROXY_CHAIN must be on or off: $LINNET_NGINX_PROXY_CHAIN" ;; esac
LINNET_NGINX_REAL_IP=''
# A proxy appends the address that it sees to what the client has sent. With `on`, a client whose own address is in a trusted
# network, or is hidden by a load balancer's, would choose the address before it.
if [ -n "$LINNET_NGINX_TRUSTED_PROXIES" ]; then
  LINNET_NGINX_REAL_IP="$(each 'set_real_ip_from %s;' "$LINNET_NGINX_TRUSTED_PROXIES")
real_ip_header X-Forwarded-For;
real_ip_recursive $LINNET_NGINX_PROXY_CHAIN;"
fi

connections="limit_conn linnet_connections $LINNET_NGINX_CONNECTIONS_PER_ADDRESS;
        limit_conn linnet_site_connections $LINNET_NGINX_CONNECTIONS_PER_SITE;"
gateway="limit_conn linnet_gateway_requests $LINNET_NGINX_GATEWAY_REQUESTS;"
costly="limit_conn linnet_redirects $LINNET_NGINX_COSTLY_REDIRECTS;
        limit_conn linnet_redirects_of_address $(( LINNET_NGINX_COSTLY_REDIRECTS / 8 ));"
LINNET_NGINX_LIMIT_ZONES='' LINNET_NGINX_RESOLVE_LIMIT=$costly
LINNET_NGINX_API_LIMIT="$connections
        limit_conn linnet_bodies_of_address $LINNET_NGINX_BODIES_PER_ADDRESS;
        $gateway"
# Only headers that a redirect may depend on. No cookie, credential or X-Linnet-… header reaches the shortener, and it has
# less to parse.
# shellcheck disable=SC2016 # nginx's variables
LINNET_NGINX_RESOLVE_HEADERS='proxy_pass_request_headers off;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header User-Agent $http_user_agent;
        proxy_set_header Referer $http_referer;
        proxy_set_header Accept-Language $http_accept_language;
        proxy_set_header Sec-Purpose $http_sec_purpose;
        proxy_set_header Purpose $http_purpose;
        proxy_set_header X-Moz $http_x_moz;
        proxy_set_header X-Purpose $http_x_purpose;
        proxy_set_header Sec-GPC $http_sec_gpc;
        proxy_set_header X-Request-Id $http_x_request_id;
        proxy_set_header traceparent $http_traceparent;'
# Names each request: nginx repeats one whose shortener has died. Unlike a client's X-Request-Id, no other request has the
# name, of this or another nginx, before or after a restart. Unlike $request_id, it needs no random number for each request.
instance=$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')
LINNET_NGINX_RESOLVE_HEADERS="$LINNET_NGINX_RESOLVE_HEADERS
        proxy_set_header X-Linnet-Visit $instance-\$msec-\$connection-\$connection_requests;"
# shellcheck disable=SC2016 # nginx's variable
LINNET_NGINX_NO_BODY='if ($linnet_has_body) { return 413; }
        client_max_body_size 1;
        proxy_request_buffering on;
        proxy_pass_request_body off;'
LINNET_NGINX_PAGE_LIMIT="$LINNET_NGINX_NO_BODY
        $connections
        $gateway"
LINNET_NGINX_HEALTH_LIMIT="$LINNET_NGINX_NO_BODY
        limit_conn linnet_health 32;"
if [ "$LINNET_NGINX_API_RATE" != off ]; then
  LINNET_NGINX_LIMIT_ZONES="limit_req_zone \$linnet_limit_key zone=linnet_api:4m rate=$LINNET_NGINX_API_RATE;
limit_req_zone \$linnet_site_key zone=linnet_api_site:1m rate=$LINNET_NGINX_API_SITE_RATE;"
  LINNET_NGINX_API_LIMIT="$LINNET_NGINX_API_LIMIT
        limit_req zone=linnet_api burst=$LINNET_NGINX_API_BURST nodelay;
        limit_req zone=linnet_api_site burst=$LINNET_NGINX_API_SITE_BURST nodelay;"
fi
if [ "$LINNET_NGINX_RESOLVE_RATE" != off ]; then
  LINNET_NGINX_LIMIT_ZONES="$LINNET_NGINX_LIMIT_ZONES
limit_req_zone \$linnet_limit_key zone=linnet_resolve:4m rate=$LINNET_NGINX_RESOLVE_RATE;
limit_req_zone \$linnet_site_key zone=linnet_resolve_site:1m rate=$LINNET_NGINX_RESOLVE_SITE_RATE;"
  LINNET_NGINX_RESOLVE_LIMIT="$costly
        $connections
        limit_req zone=linnet_resolve burst=$LINNET_NGINX_RESOLVE_BURST nodelay;
        limit_req zone=linnet_resolve_site burst=$LINNET_NGINX_RESOLVE_SITE_BURST nodelay;"
fi

# number VERSION: prints a version as one number.
number() (
  set -f
  IFS=.
  # Splitting the version is the purpose.
  # shellcheck disable=SC2086
  set -- $1
  case ${1:-0}${2:-0}${3:-0} in *[!0-9]*) echo 0 ;; *) echo $(( ${1:-0} * 1000000 + ${2:-0} * 1000 + ${3:-0} )) ;; esac
)
: "${LINNET_NGINX_VERSION:=$(nginx -v 2>&1 | sed -n 's|.*nginx/\([0-9.]*\).*|\1|p')}"
version=$(number "$LINNET_NGINX_VERSION")

# A head of thousands of short headers takes ten times its size. Older versions cannot limit their number.
LINNET_NGINX_MAX_HEADERS='# max_headers needs nginx 1.30.'
if [ "$version" -ge 1030000 ]; then LINNET_NGINX_MAX_HEADERS='max_headers 100;'; fi

LINNET_NGINX_REFUSAL_LOG=''
if [ -n "$LINNET_NGINX_REFUSALS" ]; then
  case $LINNET_NGINX_REFUSALS in *[,\ ]*) bad "LINNET_NGINX_REFUSALS must be one address: $LINNET_NGINX_REFUSALS" ;; esac
  LINNET_NGINX_REFUSAL_LOG="access_log syslog:server=$LINNET_NGINX_REFUSALS,nohostname,tag=linnet linnet_refused if=\$linnet_refused;"
fi
LINNET_NGINX_STATUS_SERVER=''
if [ -n "$LINNET_NGINX_STATUS_LISTEN" ]; then
  LINNET_NGINX_STATUS_SERVER="server {
    listen $LINNET_NGINX_STATUS_LISTEN;
    access_log off;
    location = /stub_status { stub_status; }
    location / { return 404; }
}"
fi
LINNET_NGINX_GRAFANA_LOCATION=''
if [ -n "$LINNET_NGINX_GRAFANA" ]; then
  # A variable in proxy_pass makes nginx resolve the name for each request, so it starts without Grafana.
  # Grafana has no part in the limits of the API. Logins are rare, so few requests of one address are enough.
  LINNET_NGINX_LIMIT_ZONES="$LINNET_NGINX_LIMIT_ZONES
limit_conn_zone \$linnet_limit_key zone=linnet_grafana_connections:1m;
limit_conn_zone \$server_name zone=linnet_grafana_requests:64k;
limit_req_zone \$linnet_limit_key zone=linnet_grafana:1m rate=50r/s;"
  LINNET_NGINX_GRAFANA_LOCATION="location ^~ /grafana/ {
        limit_conn linnet_grafana_connections 32;
        limit_conn linnet_grafana_requests 64;
        limit_req zone=linnet_grafana burst=200 nodelay;
        resolver $LINNET_NGINX_RESOLVER valid=5s ipv6=off;
        set \$linnet_grafana $LINNET_NGINX_GRAFANA;
        # Live panels use web sockets.
        proxy_set_header Host \$http_host;
        proxy_set_header X-Forwarded-Proto \$linnet_proto;
        proxy_set_header Upgrade \$http_upgrade;
        proxy_set_header Connection \$linnet_connection;
        proxy_pass http://\$linnet_grafana;
    }
    location = /grafana { return 308 /grafana/; }"
fi

# --- TLS -------------------------------------------------------------------------------------------------------------
LINNET_NGINX_MULTIPLEXED='' LINNET_NGINX_TLS_SETTINGS='' LINNET_NGINX_TLS_HTTP='' LINNET_NGINX_PLAIN_SERVER='' LINNET_NGINX_HSTS_HEADER='' LINNET_NGINX_RESOLVE_STREAM='' LINNET_NGINX_STREAM_LOCATION=''
case $LINNET_NGINX_TLS in
  on | off) ;;
  *) bad "LINNET_NGINX_TLS must be on or off: $LINNET_NGINX_TLS" ;;
esac
# shellcheck disable=SC2089 # the quotes are nginx's
if [ "$LINNET_NGINX_TLS" = on ]; then
  case $LINNET_NGINX_TLS_PORT in '' | *[!0-9]*) bad "LINNET_NGINX_TLS_PORT must be a port: $LINNET_NGINX_TLS_PORT" ;; esac
  : "${LINNET_NGINX_OPENSSL:=$(nginx -V 2>&1 | sed -n 's/^built with OpenSSL \([0-9.]*\).*/\1/p; s/.*(running with OpenSSL \([0-9.]*\).*/\1/p' | tail -n 1)}"
  # nginx refuses to start with a curve that OpenSSL lacks.
  curves=X25519:prime256v1:secp384r1
  if [ "$(number "$LINNET_NGINX_OPENSSL")" -ge 3005000 ]; then curves=X25519MLKEM768:$curves; fi
  http2='' http2_line='http2 on;'
  if [ "$version" -lt 1025001 ]; then http2=http2 http2_line='# HTTP/2 is an option of listen before nginx 1.25.1.'; fi
  cache='# ssl_certificate_cache needs nginx 1.27.4.'
  if [ "$version" -ge 1027004 ]; then cache='ssl_certificate_cache max=4 valid=60s inactive=1h;'; fi
  port=''
  if [ "$LINNET_NGINX_TLS_PORT" -ne 443 ]; then port=:$LINNET_NGINX_TLS_PORT; fi
  plain=$LINNET_NGINX_LISTEN_LINES
  LINNET_NGINX_LISTEN_LINES=$(each "    listen %s ssl $http2 default_server $LINNET_NGINX_LISTEN_OPTIONS;" "$LINNET_NGINX_TLS_LISTEN")
  hsts=''
  if [ "$LINNET_NGINX_HSTS" != off ]; then
    # shellcheck disable=SC2016 # nginx's variable
    LINNET_NGINX_HSTS_HEADER='add_header Strict-Transport-Security $linnet_hsts always;'
    # The file belongs to the certificate, so HSTS follows it without a reload. The cache saves a system call a request.
    hsts="open_file_cache max=8 inactive=1h;
    open_file_cache_valid 60s;
    open_file_cache_errors on;
    uninitialized_variable_warn off;
    set \$linnet_hsts \"\";
    if (-f \"$LINNET_NGINX_CERTIFICATE/hsts\") { set \$linnet_hsts \"$LINNET_NGINX_HSTS\"; }
    $LINNET_NGINX_HSTS_HEADER"
  fi
  LINNET_NGINX_TLS_HTTP="# A path with a variable makes nginx read the files at a handshake, not at its start: nginx starts before they exist, and
# a swapped symlink needs no reload.
map \$ssl_server_name \$linnet_certificate { default \"$LINNET_NGINX_CERTIFICATE\"; }"
  # Mozilla's guideline 6.0, intermediate. There is neither OCSP nor a DH parameter, because clients use neither. Tickets stay on,
  # their keys rotate in the shared cache. The bounds keep a connection's memory small: a client can have a largest head in each
  # stream (nginx/README.md). Two streams are enough for an event stream and a request beside it.
  LINNET_NGINX_TLS_SETTINGS="ssl_certificate \"\$linnet_certificate/cert.pem\";
    ssl_certificate_key \"\$linnet_certificate/key.pem\";
    $cache
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve $curves;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
    ssl_prefer_server_ciphers off;
    ssl_session_timeout 1d;
    ssl_session_cache shared:linnet:2m;
    ssl_buffer_size 4k;
    $http2_line
    http2_max_concurrent_streams 2;
    $hsts"
  # The same errors as those of the server with TLS. HSTS is for HTTPS only.
  export LINNET_NGINX_PROBLEM_TYPES
  # shellcheck disable=SC2016 # the pattern matches the names
  errors=$(sed -n '/# --- Errors of nginx itself/,/# --- End of the errors/p' "$LINNET_NGINX_TEMPLATE" \
    | LINNET_NGINX_HSTS_HEADER='' envsubst '${LINNET_NGINX_HSTS_HEADER} ${LINNET_NGINX_PROBLEM_TYPES}')
  [ -n "$errors" ] || bad "the template has no errors of nginx: $LINNET_NGINX_TEMPLATE"
  LINNET_NGINX_PLAIN_SERVER="server {
$plain
    server_name _;
    access_log off;
$errors
    location ^~ /.well-known/acme-challenge/ {
        root \"$LINNET_NGINX_CHALLENGES\";
        default_type text/plain;
    }
    # For health checks of this machine, which do not follow redirects.
    location = /health {
        proxy_set_header Host \$host;
        proxy_set_header Connection \"\";
        proxy_set_header X-Request-Id \$linnet_request_id;
        proxy_set_header X-Forwarded-For \$remote_addr;
        proxy_set_header X-Real-IP \$remote_addr;
        $LINNET_NGINX_HEALTH_LIMIT
        proxy_pass http://linnet_gateway;
    }
    location / { return 308 https://\$host$port\$request_uri; }
}"
  # shellcheck disable=SC2016 # nginx's variable
  LINNET_NGINX_MULTIPLEXED='${http2}'
  # Over HTTP/2, a body can come without an announcement, and nginx would collect it before it rewrites.
  # shellcheck disable=SC2016 # nginx's variables
  LINNET_NGINX_RESOLVE_STREAM='if ($http2) {
            rewrite ^ /_linnet/stream last;
        }'
  LINNET_NGINX_STREAM_LOCATION="location = /_linnet/stream {
        internal;
        client_max_body_size 1;
        proxy_request_buffering on;
        proxy_pass_request_body off;
        $LINNET_NGINX_RESOLVE_LIMIT
        access_log \"$LINNET_NGINX_ACCESS_LOG\" linnet buffer=64k flush=1s if=\$linnet_resolve_logged;
        proxy_pass http://linnet_resolve\$request_uri;
        $LINNET_NGINX_RESOLVE_HEADERS
        proxy_set_header Connection \"\";
        proxy_set_header Content-Length \"\";
        proxy_read_timeout 10s;
    }"
fi

export LINNET_NGINX_NO_BODY LINNET_NGINX_PAGE_LIMIT LINNET_NGINX_HEALTH_LIMIT LINNET_NGINX_MULTIPLEXED
# shellcheck disable=SC2090
export LINNET_NGINX_TLS_SETTINGS LINNET_NGINX_TLS_HTTP LINNET_NGINX_PLAIN_SERVER LINNET_NGINX_HSTS_HEADER LINNET_NGINX_RESOLVE_STREAM LINNET_NGINX_STREAM_LOCATION LINNET_NGINX_RESOLVE_HEADERS
export LINNET_NGINX_REFUSAL_LOG LINNET_NGINX_STATUS_SERVER LINNET_NGINX_GRAFANA_LOCATION
export LINNET_NGINX_RESOLVE_SERVERS LINNET_NGINX_GATEWAY_SERVERS LINNET_NGINX_LISTEN_LINES LINNET_NGINX_TRUSTED_GEO \
  LINNET_NGINX_UNLIMITED_GEO LINNET_NGINX_REAL_IP LINNET_NGINX_LIMIT_ZONES LINNET_NGINX_API_LIMIT LINNET_NGINX_RESOLVE_LIMIT \
  LINNET_NGINX_RESOLVE_LOG_SAMPLE LINNET_NGINX_ACCESS_LOG LINNET_NGINX_ERROR_LEVEL \
  LINNET_NGINX_TMP LINNET_NGINX_MAX_HEADERS LINNET_NGINX_PROBLEM_TYPES

# Only the names in braces are substituted; nginx's own $variables stay.
# shellcheck disable=SC2016 # the pattern matches the name, not its value
names=$(grep -o '\${LINNET_NGINX_[A-Z_]*}' "$LINNET_NGINX_TEMPLATE" | sort -u | tr '\n' ' ')
mkdir -p "$(dirname "$LINNET_NGINX_OUT")"
printf 'worker_connections %s;\n' "$LINNET_NGINX_WORKER_CONNECTIONS" > "$(dirname "$LINNET_NGINX_OUT")/events.inc"
envsubst "$names" < "$LINNET_NGINX_TEMPLATE" > "$LINNET_NGINX_OUT.new"
mv -f "$LINNET_NGINX_OUT.new" "$LINNET_NGINX_OUT"
