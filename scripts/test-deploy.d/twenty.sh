# shellcheck shell=bash disable=SC2154 # variables of helpers.sh
# Check of scripts/test-deploy, only by name: twenty deployments in a row under load, through TLS.

if [[ ,${ONLY:-}, == *,twenty,* ]]; then checks+=(twenty); fi

check_twenty() {
  ensure_first
  type -P wrk >/dev/null || { echo "wrk not found; install the package wrk"; return 1; }
  # One user creates 2 % of RATE, which is more than the default limit.
  local rate=${RATE:-2000} wanted=${REQUESTS:-1000000} began=$SECONDS index deployed=0 id
  on_server sh -c 'printf "LINNET__LIMITS__KEY_PER_MINUTE=60000\nLINNET__LIMITS__USER_PER_MINUTE=60000\nLINNET__LIMITS__KEY_BURST=2000\nLINNET__LIMITS__USER_BURST=2000\n" > /etc/linnet/linnet.env'
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
