# shellcheck shell=bash disable=SC2154,SC2016 # variables of helpers.sh; scripts for the server
# Check of scripts/test-deploy: the memory of a server with TLS, backups and both colors, under load.

checks+=(memory)

# resident: prints each container's service with its resident memory in KiB, and a line that ends the sample. As in
# scripts/test-compose, that is without the file cache, which the kernel can reclaim; shared memory counts once.
resident() {
  on_server sh -c 'docker ps --filter label=com.docker.compose.project=linnet --format "{{.ID}} {{.Label \"com.docker.compose.service\"}}" |
    while read -r id service; do
      for pid in $(docker top "$id" -eo pid 2>/dev/null | tail -n +2); do cat "/proc/$pid/smaps_rollup" 2>/dev/null; done |
        awk -v service="$service" "/^Pss_(Anon|Shmem):/ { kib += \$2 } END { print service, kib + 0 }"
    done'
  echo '- 0'
}

check_memory() {
  ensure_first
  start_load "${RATE:-300}"
  release "$second" > "$scratch/client" 2>&1 &
  local client=$! backup=''
  wait_step Canary50
  : > "$scratch/resident"
  while [[ $(deploy status) == *open* ]]; do
    resident >> "$scratch/resident"
    # The sidecar's greatest use is during a backup.
    if [[ -z $backup ]] && step_began Warm; then deploy backup > "$scratch/take" 2>&1 & backup=$!; fi
  done
  wait "$client" || { cat "$scratch/client"; return 1; }
  wait "$backup" || { cat "$scratch/take"; return 1; }
  expect_no_failures
  deploy rollback
  local status=0
  python3 - "$scratch/resident" > "$scratch/memory" <<'PYTHON' || status=$?
import sys
from collections import Counter
most, sample = Counter(), Counter()
for line in open(sys.argv[1]):
    service, kib = line.split()
    if service == "-":
        most |= sample
        sample = Counter()
    # The backup of an operator is a second container of the service.
    sample[service] += int(kib)
wanted = {f"{name}-{color}" for name in ("gateway", "shortener") for color in ("blue", "green")}
wanted |= {"nginx", "worker", "postgres", "redis", "acme", "backup"}
assert wanted <= most.keys(), f"missing: {wanted - most.keys()}"
total = sum(most[name] for name in wanted) / 1024
parts = ", ".join(f"{name} {most[name] / 1024:.0f}" for name in sorted(wanted, key=most.get, reverse=True))
print(f"{total:.0f} MiB ({parts})")
sys.exit(total > 512)
PYTHON
  figure "resident memory of the core services with TLS, both colors and the backup sidecar, at ${RATE:-300} requests/s, the highest of each" "$(<"$scratch/memory")" '≤ 512 MiB'
  return "$status"
}
