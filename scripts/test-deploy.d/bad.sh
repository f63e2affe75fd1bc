# shellcheck shell=bash disable=SC2154,SC2016 # variables of helpers.sh; scripts for the server
# Check of scripts/test-deploy: releases that are wrong in one way (crates/host/examples/bad_release.rs), as real images and with
# the default times. Each must be reverted by itself.

checks+=(bad_releases)

# FAULT:STEP:REASON: the step at which it must be noticed at the latest, and words of the reason.
bad_releases=(
  'status500:Canary10:redirects failed'
  'missing:Canary10:were 404'
  'slow:Canary10:took longer than'
  'memory:Canary50:memory\|ended'
  'crash:Canary50:ended\|could not be read'
  'unready:Start:was not ready'
)

check_bad_releases() {
  ensure_first
  local fault step reason line status=0
  default_steps
  for line in "${bad_releases[@]}"; do
    IFS=: read -r fault step reason <<< "$line"
    if [[ -n ${FAULTS:-} && ",$FAULTS," != *",$fault,"* ]]; then continue; fi
    bad_release "$fault" "$step" "$reason" || { echo "FAILED: $fault"; status=1; }
  done
  shorter_steps
  (( status == 0 )) && echo "each bad release was reverted"
}

bad_release() {
  local fault=$1 step=$2 reason=$3 target result=0 exposure
  for target in gateway bundle acme backup; do docker tag "$name/$target:$second" "$name/$target:$fault"; done
  derived shortener "$second" "$fault" "ENV BAD_RELEASE=$fault" 'COPY bad_release /bad_release' 'ENTRYPOINT ["/bad_release"]'
  start_load 100
  release "$fault" > "$scratch/client" 2>&1 || result=$?
  stop_load
  cat "$scratch/client"
  [[ $result == 1 ]] || { echo "exit code $result"; return 1; }
  grep -q "$reason" "$scratch/client" || { echo "the reason is not: $reason"; return 1; }
  expect_release "$first" || return 1
  exposure=$(python3 - "$scratch/load" "$fault" <<'PYTHON'
import json, sys
found = json.load(open(sys.argv[1]))["slow" if sys.argv[2] == "slow" else "bad"]
print(f"{found['seconds']:.1f} s; {found['requests']} requests, {100 * found['share']:.1f} % of all in that time")
assert found["seconds"] <= 30, "longer than 30 s"
PYTHON
  ) || { echo "$exposure"; return 1; }
  figure "bad release \`$fault\`: first to last bad answer; exposed" "$exposure" '≤ 30 s; ≤ 10 % if visible at 10 %'
  # Noticed at this step, not later.
  local reached; reached=$(on_server sh -c 'cat "$(ls -t /var/lib/linnet/releases/*.json | head -n 1)"' | grep -oE '"step": *"[a-z0-9]+"' | tail -n 1)
  echo "$reached"
  [[ ${reached,,} == *"\"${step,,}\""* || ${reached,,} == *start* || ( $step == Canary50 && ${reached,,} == *canary10* ) ]] || { echo "noticed at $reached instead of $step"; return 1; }
}
