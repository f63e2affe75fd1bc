# shellcheck shell=bash disable=SC2154,SC2034,SC2016 # variables of other files; texts and scripts for the server
# The checks of scripts/test-deploy for a healthy server. The last line that a check prints is shown as its result.

checks=(arguments dry_run taken_port init init_again cloud_init hardening restricted_key first https backup canary rollback_warm
  rollback_cold killed_client killed_unit restart busy in_place drift revoked_key oncall apply stop)

check_arguments() {
  expect_error 64 'is not a name such as' "$deploy_sh" init "root@$server" --domain go_example --email ops@example.com --tls off --dns-later
  expect_error 64 'is not valid' "$deploy_sh" init "root@$server" --domain go.example.com --email ops --tls off --dns-later
  expect_error 69 'has no address in DNS' "$deploy_sh" init "root@$server" --domain go.does-not-exist.invalid --email ops@example.com
  expect_error 64 'is not a server' "$deploy_sh" status 'a;b'
  expect_error 64 '64 hexadecimal digits' "$deploy_sh" release "$server" --image-digest gateway=latest
}

check_dry_run() {
  local output; output=$("$deploy_sh" init "root@$server" "${init_options[@]}" --dry-run)
  grep -q 'would: install docker.io' <<< "$output"
  on_server sh -c '! test -e /etc/linnet && ! id linnet 2>/dev/null'
  tail -n 1 <<< "$output"
}

# Before anything is changed.
check_taken_port() {
  on_server systemd-run -q --unit=listener perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 80) or die; sleep 60'
  local status=0
  wait_for 10 "the listener" on_server sh -c 'ss -Hltn "sport = :80" | grep -q .'
  expect_error 69 'port 80 is in use by perl' "$deploy_sh" init "root@$server" "${init_options[@]}" || status=1
  on_server systemctl stop listener
  on_server sh -c '! test -e /etc/linnet' || status=1
  return "$status"
}

check_init() {
  local began=$SECONDS
  "$deploy_sh" init "root@$server" "${init_options[@]}" --deploy-key "$scratch/ci.pub"
  echo "$(( SECONDS - began ))" > "$scratch/init_s"
  start_pebble
  on_server systemctl is-active docker linnet-firewall linnet-check.timer
  docker save nginxinc/nginx-unprivileged:1.30.6 postgres:17.11-trixie redis:8.2.10-bookworm | on_server docker load -q
}

check_init_again() {
  # Root is refused by now; the script then logs in as linnet.
  "$deploy_sh" init "root@$server" "${init_options[@]}" --deploy-key "$scratch/ci.pub" | tee "$scratch/again"
  [[ $(tail -n 1 "$scratch/again") == 'nothing changed' ]]
}

check_cloud_init() {
  "$deploy_sh" cloud-init "${init_options[@]}" --operator-keys "$scratch/key.pub" > "$scratch/cloud.yaml"
  "$("$LINNET_ROOT/scripts/python-tools")/python" - "$scratch/cloud.yaml" "$LINNET_ROOT/deploy/host/init-lib.sh" <<'PYTHON'
import base64, sys, yaml
config = yaml.safe_load(open(sys.argv[1]))
files = {file["path"]: base64.b64decode(file["content"]) for file in config["write_files"]}
assert open(sys.argv[2], "rb").read() in files["/usr/local/sbin/linnet-init"]
command = config["runcmd"][0]
assert command[:2] == ["bash", "/usr/local/sbin/linnet-init"] and "--domain" in command, command
print("the file contains the script and calls it with", len(command) - 2, "arguments")
PYTHON
}

check_hardening() {
  expect_error 69 'accepts no key of yours' "$deploy_sh" status "root@$server"
  # A published port of a container is not reachable from outside; 80 is.
  local id; id=$(on_server docker run -d --rm -p 8099:8080 nginxinc/nginx-unprivileged:1.30.6)
  on_server sh -c 'for i in $(seq 50); do curl -fs -o /dev/null http://127.0.0.1:8099/ 2>/dev/null && exit; sleep 0.1; done' || true
  # Neither through a second interface, such as that of a provider's private network.
  docker network create "$name-second" >/dev/null
  docker network connect "$name-second" "$machine"
  local second open=''
  second=$(docker inspect -f "{{(index .NetworkSettings.Networks \"$name-second\").IPAddress}}" "$machine")
  if curl -sS -m 3 -o /dev/null "http://$address:8099/"; then open+=" $address"; fi
  if curl -sS -m 3 -o /dev/null "http://$second:8099/"; then open+=" $second"; fi
  on_server docker rm -f "$id" >/dev/null
  docker network disconnect "$name-second" "$machine"
  docker network rm "$name-second" >/dev/null
  [[ -n $second && -z $open ]] || { echo "port 8099 is open at$open"; return 1; }
  echo "root is refused, and port 8099 of a container is closed"
}

check_restricted_key() {
  as_ci() { ssh -p "${server#*:}" -i "$scratch/ci" -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile="$LINNET_KNOWN_HOSTS" deploy@127.0.0.1 "$@"; }
  # Before the first release there is no program.
  if ! on_server test -x /usr/local/sbin/linnet-host; then
    local id; id=$(docker create "$name/bundle:$first" none)
    docker cp -q "$id:/bundle/linnet-host" "$scratch/linnet-host"; docker rm "$id" >/dev/null
    docker cp -q "$scratch/linnet-host" "$name:/usr/local/sbin/linnet-host"
  fi
  as_ci status
  local command
  for command in id 'sh -c id' load apply 'status; id' 'deploy --loaded gateway=x' /bin/sh; do
    expect_error 64 'error:' as_ci "$command"
  done
  expect_error 64 'error:' as_ci
  # Port forwarding is refused: nothing answers at the forwarded port.
  expect_error 255 'administratively prohibited' as_ci -o ExitOnForwardFailure=yes -W 127.0.0.1:22
}

check_first() {
  local began=$SECONDS init_s load; init_s=$(<"$scratch/init_s"); load=$(cut -d ' ' -f 1 /proc/loadavg)
  release "$first"
  local release_s=$(( SECONDS - began ))
  wait_for 60 "a certificate of Pebble" serves
  figure "\`init\` + first \`release\` + certificate, images sent over SSH (load $load)" "$init_s + $release_s + $(( SECONDS - began - release_s )) s" '≤ 180 s'
  (( init_s + SECONDS - began <= 180 )) || echo "slower than 180 s"
  expect_release "$first"
  local shortener; shortener=$(linnet_container shortener-blue)
  on_server docker exec "$shortener" /linnet-shortener admin create-key --username admin --email a@example.com --name test \
    | tail -n 1 > "$scratch/admin_key"
  shorter_steps
  echo "$first serves"
}

check_https() {
  local head; head=$(web /health -I)
  grep -qi '^HTTP/2 200' <<< "$head"
  wait_for 70 "HSTS" has_hsts
  [[ $(curl -sS -m 5 -o /dev/null -w '%{http_code} %{redirect_url}' -H "Host: $domain" "http://$address/x?y=1") == "308 https://$domain/x?y=1" ]]
  on_server docker exec "$(linnet_container acme)" /linnet-acme status
  # nginx serves it without a restart.
  on_server docker inspect -f '{{.RestartCount}}' "$(linnet_container nginx)" | grep -qx 0
  # The ACME client tries the domain from a container, before it orders.
  on_server docker run --rm --network linnet_certificates --add-host "$domain:$address" --entrypoint curl nginxinc/nginx-unprivileged:1.30.6 \
    -sS -m 5 -o /dev/null "http://$domain/health"
  echo "HTTP/2 with a certificate of Pebble, HSTS, and 308 from HTTP"
}
has_hsts() { web /health -I | grep -qi '^strict-transport-security: max-age='; }

check_canary() {
  ensure_first
  start_load 100
  release "$second"
  expect_no_failures
}

check_rollback_warm() {
  start_load 100
  local began moved took; began=$(date +%s.%N)
  deploy rollback
  took=$(awk -v began="$began" -v now="$(date +%s.%N)" 'BEGIN { printf "%.1f", now - began }')
  expect_no_failures
  expect_release "$first"
  # The command returns later, when the color that was given up has finished its requests.
  moved=$(on_server journalctl -u linnet-deploy --since="@${began%.*}" -o short-unix | awk -v began="$began" '/serves all requests again/ { moved = $1 - began } END { printf "%.1f", moved }')
  figure "warm rollback: until the old color serves all requests; until the command returns" "$moved s; $took s" '≤ 10 s; –'
  awk -v moved="$moved" 'BEGIN { exit !(moved > 0 && moved <= 10) }'
  echo "a warm rollback took $moved s, and $took s until its end"
}

check_rollback_cold() {
  ensure_first
  start_load 100
  release "$second"
  wait_for 150 "the old color to be removed" expect_release "$second"
  local began=$SECONDS
  deploy rollback
  local took=$(( SECONDS - began ))
  expect_no_failures
  expect_release "$first"
  (( took <= 60 ))
  # To the release that was just given up, and back: each return is a release of its own, and has its folder.
  deploy rollback
  wait_for 150 "the old color to be removed" expect_release "$second"
  deploy rollback
  wait_for 150 "the old color to be removed" expect_release "$first"
  on_server test -e /opt/linnet/current/deploy/compose.yaml
  deploy check
  deploy backup
  echo "a cold rollback took $took s"
}

# The client dies, as with a closed laptop. The deployment continues.
check_killed_client() {
  ensure_first
  start_load 100
  setsid bash -c "source '$LINNET_ROOT/scripts/lib.sh'; source '$LINNET_ROOT/scripts/test-deploy.d/helpers.sh'; name='$name' server='$server' machine='$machine'; release '$second'" &
  local client=$!
  wait_step Canary10
  kill -KILL -- "-$client"
  wait_for 150 "the deployment to continue" step_began Warm
  expect_no_failures
  deploy status | tail -n 1
  deploy rollback
  expect_release "$first"
}

# The deployment itself dies at a step, as with a restart of the server. Requests are served, status explains, resume ends it.
check_killed_unit() {
  ensure_first
  local step client
  start_load 60
  for step in ${KILL_AT:-prepare migrate start smoke canary10 canary50 full follow warm}; do
    on_server touch /run/marker
    release "$second" > /dev/null 2>&1 &
    client=$!
    kill_unit_at "$step"
    wait "$client" || true
    serves
    echo "killed at $step:"
    deploy status | grep 'run `deploy.sh resume` or `deploy.sh rollback`'
    if [[ $step != warm ]]; then expect_error 75 'was interrupted' release "$third"; fi
    deploy resume
    deploy status | grep -q "^release   $second "
    deploy rollback
    expect_release "$first"
  done
  expect_no_failures
}
# Polls on the server, because some steps last less than a connection. Without a file, `xargs -r` succeeds.
kill_unit_at() {
  on_server timeout 180 sh -c 'until find /var/lib/linnet/releases -name "*.json" -newer /run/marker | xargs -r grep -lE "\"step\": *\"$0\"" | grep -q .; do sleep 0.02; done
    systemctl kill --signal=KILL linnet-deploy' "$1"
}

# The whole server restarts during a canary, and once more without a deployment.
check_restart() {
  ensure_first
  release "$second" > /dev/null 2>&1 &
  local client=$! began
  wait_step Canary10
  docker restart -t 60 "$machine" >/dev/null
  began=$SECONDS
  wait "$client" || true
  find_server
  wait_for 120 "the service after a restart" serves
  figure 'restart of the server during a canary: until requests are served' "$(( SECONDS - began )) s"
  wait_for 60 "SSH" deploy status
  deploy status | grep 'run `deploy.sh resume` or `deploy.sh rollback`'
  deploy resume
  deploy status | grep -q "^release   $second "
  deploy rollback
  expect_release "$first"
  docker restart -t 60 "$machine" >/dev/null
  find_server
  wait_for 120 "the service after a restart" expect_release "$first"
  on_server systemctl is-active docker linnet-firewall
}

check_busy() {
  ensure_first
  release "$second" > /dev/null 2>&1 &
  local client=$!
  wait_step Canary10
  expect_error 75 'already running' release "$third"
  deploy rollback
  wait "$client" || true
  expect_release "$first"
}

check_in_place() {
  ensure_first
  start_load 60
  release "$second" --in-place
  stop_load
  expect_release "$second"
  release "$first"
  deploy status | grep -q "^release   $first "
}

check_drift() {
  ensure_first
  wait_for 120 "the old color to be removed" expect_release "$first"
  deploy check
  on_server sh -c 'echo "X11Forwarding yes" >> /etc/ssh/sshd_config.d/10-linnet.conf; iptables -F DOCKER-USER'
  expect_error 69 '2 differences' deploy check
  on_server grep -qx 'linnet_host_drift 2' /var/lib/linnet/metrics/drift.prom
  on_server grep -qE '^linnet_host_certificate_not_after_seconds [1-9][0-9]{9}$' /var/lib/linnet/metrics/certificate.prom
  "$deploy_sh" init "$server" "${init_options[@]}" --deploy-key "$scratch/ci.pub"
  deploy check
  # A rule that admits everything, and a service that is no color.
  on_server sh -c 'iptables -I DOCKER-USER -j ACCEPT; docker stop linnet-worker-1'
  expect_error 69 'worker is not running' deploy check
  on_server grep -qx 'linnet_host_drift 2' /var/lib/linnet/metrics/drift.prom
  on_server docker start linnet-worker-1
  "$deploy_sh" init "$server" "${init_options[@]}"
  deploy check
}

check_revoked_key() {
  ensure_first
  "$deploy_sh" init "$server" "${init_options[@]}" --deploy-key "$scratch/ci.pub"
  as_ci() { ssh -p "${server#*:}" -i "$scratch/ci" -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile="$LINNET_KNOWN_HOSTS" deploy@127.0.0.1 "$@"; }
  as_ci status
  "$deploy_sh" init "$server" "${init_options[@]}" --deploy-key ''
  expect_error 255 'Permission denied' as_ci status
  deploy check
}

# The commands of the runbooks, on the server.
check_oncall() {
  ensure_first
  oncall() { on_server sudo -u linnet sudo /opt/linnet/current/scripts/oncall "$@"; }
  oncall status | grep -q 'linnet-nginx-1'
  oncall sql 'SELECT 1'
  oncall redis PING | grep -qx PONG
  oncall ready worker
  oncall certificate
  oncall compose run --rm --no-deps -T backup status
  oncall restart worker
  wait_for 60 "the worker" oncall ready worker
}

check_apply() {
  ensure_first
  wait_for 120 "the old color to be removed" expect_release "$first"
  local before; before=$(on_server docker ps -q --no-trunc | sort)
  # Found before any container is replaced: by this program, by a process, and by nginx.
  local line
  for line in LINNET_HSTSS=off LINNET__GATEWAY__ANONYMOUS=maybe LINNET_TRUSTED_PROXIES=nonsense; do
    on_server sh -c "cp -p /etc/linnet/linnet.env /run/env; echo '$line' >> /etc/linnet/linnet.env"
    expect_error 69 /etc/linnet/linnet.env deploy apply
    on_server cp -p /run/env /etc/linnet/linnet.env
  done
  [[ $(on_server docker ps -q --no-trunc | sort) == "$before" ]]
  on_server sh -c "echo 'LINNET_HSTS=max-age=300' >> /etc/linnet/linnet.env"
  deploy apply
  wait_for 70 "the new header" has_short_hsts
  on_server cp -p /run/env /etc/linnet/linnet.env
  deploy apply | tail -n 1
}
has_short_hsts() { web /health -I | grep -qi '^strict-transport-security: max-age=300'; }

# Everything stops, the repository has the last change, and `apply` starts it again.
check_stop() {
  ensure_first
  wait_for 120 "the old color to be removed" expect_release "$first"
  deploy stop
  on_server sh -c '! docker ps --format "{{.Names}}" | grep -q .'
  deploy apply
  wait_for 60 "HTTPS" serves
  expect_release "$first"
}
