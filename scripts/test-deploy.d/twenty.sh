# shellcheck shell=bash disable=SC2154 # variables of helpers.sh
# Check of scripts/test-deploy, only by name: twenty deployments in a row under load, through TLS.

if [[ ,${ONLY:-}, == *,twenty,* ]]; then checks+=(twenty); fi

# present ID: brings the images of a release to the server as deploy.sh does.
present() {
  local image tag
  for image in gateway shortener bundle acme backup; do
    tag=$(docker image inspect -f '{{.Id}}' "$name/$image:$1")
    tag=linnet-transfer/$image:${tag:7:32}
    on_server docker image inspect "$tag" >/dev/null 2>&1 && continue
    docker tag "$name/$image:$1" "$tag"
    docker save "$tag" | on_server docker load -q
    docker rmi "$tag" >/dev/null
  done
}

check_twenty() {
  ensure_first
  type -P wrk >/dev/null || { echo "wrk not found; install the package wrk"; return 1; }
  # One user creates 2 % of RATE, which is more than the default limit.
  local rate=${RATE:-2000} wanted=${REQUESTS:-1000000} began=$SECONDS index deployed=0 id
  on_server sh -c 'printf "LINNET__LIMITS__KEY_PER_MINUTE=60000\nLINNET__LIMITS__USER_PER_MINUTE=60000\nLINNET__LIMITS__KEY_BURST=2000\nLINNET__LIMITS__USER_BURST=2000\n" > /etc/linnet/linnet.env'
  # At this rate, a step has thousands of requests within seconds.
  on_server sed -i 's/"bake_seconds": [0-9]*/"bake_seconds": 4/' /etc/linnet/host.json
  # Both releases are on the server before: this machine would compress images beside its own server.
  present "$second"
  deploy apply
  wait_for 60 "the service" serves
  links 50 "$scratch/codes"
  wrk -t 2 -c 64 -d 7200s --timeout 10s -s "$LINNET_ROOT/scripts/test-deploy.d/mixed.lua" "https://$address" -- \
    "$scratch/admin_key" "$scratch/codes" "$rate" 2 > "$scratch/wrk" 2> "$scratch/wrk-errors" &
  load_pid=$!
  for (( index = 1; index <= 20; index++ )); do
    id=$second; if (( index % 2 == 0 )); then id=$first; fi
    release "$id" > "$scratch/client" 2>&1 || { echo "deployment $index:"; cat "$scratch/client"; break; }
    echo "$(date -u +%T) deployment $index: $(grep -c . "$scratch/client") lines, load $(cut -d ' ' -f 1-2 /proc/loadavg)"
    deployed=$index
  done
  while (( deployed == 20 && (SECONDS - began) * rate < wanted )); do sleep 5; done
  kill -INT "$load_pid"; wait "$load_pid" || true; load_pid=''
  cat "$scratch/wrk-errors" "$scratch/wrk"
  on_server sh -c ': > /etc/linnet/linnet.env'
  on_server sed -i 's/"bake_seconds": 4/"bake_seconds": 8/' /etc/linnet/host.json
  local status=0
  python3 - "$scratch/wrk" "$deployed" "$wanted" > "$scratch/twenty" <<'PYTHON' || status=$?
import json, re, sys
found = json.loads(re.search(r"^\{.*\}$", open(sys.argv[1]).read(), re.M)[0])
failed = sum(found[name] for name in ("other statuses", "connect", "read", "write", "timeout"))
total = found["redirects"] + found["creates"] + failed
print(f"{failed} failed of {total:,} ({found['creates']:,} creates), {found['rate']}/s, {sys.argv[2]} deployments")
sys.exit(failed > 0 or int(sys.argv[2]) < 20 or total < int(sys.argv[3]))
PYTHON
  figure "20 deployments in a row under mixed load through TLS" "$(<"$scratch/twenty")" '0 failed of ≥ 1,000,000 at ≥ 2,000/s'
  return "$status"
}
