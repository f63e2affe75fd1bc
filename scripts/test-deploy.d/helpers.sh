# shellcheck shell=bash disable=SC2154,SC2034 # variables of scripts/test-deploy and for its checks
# Functions for the checks of scripts/test-deploy. Source it; it runs nothing.

deploy_sh=$LINNET_ROOT/deploy/deploy.sh
init_options=(--domain go.example.com --email ops@example.com --tls off --dns-later)

# A container of that name, reached at 127.0.0.1. Existing ones are used again with KEEP.
start_server() {
  [[ -f $scratch/key ]] || ssh-keygen -q -t ed25519 -N '' -f "$scratch/key"
  [[ -f $scratch/ci ]] || ssh-keygen -q -t ed25519 -N '' -f "$scratch/ci"
  if ! docker inspect "$name" >/dev/null 2>&1; then
    free_port 22600 > "$scratch/port"
    step "starting the server $name"
    "$LINNET_DROPLET" "$name" "$(<"$scratch/port")" "$scratch/key.pub" >/dev/null
  fi
  server=127.0.0.1:$(<"$scratch/port")
  address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$name")
}

on_server() { docker exec -i "$name" "$@"; }
# linnet_container SERVICE: prints the container's id on the server.
linnet_container() { on_server docker ps -aq --filter "label=com.docker.compose.service=$1" | head -n 1; }
deploy() { "$deploy_sh" "$1" "$server" "${@:2}"; }

# release ID [OPTIONS]: deploys the local images of that id.
release() {
  LINNET_GATEWAY_IMAGE=$name/gateway:$1 LINNET_SHORTENER_IMAGE=$name/shortener:$1 LINNET_BUNDLE_IMAGE=$name/bundle:$1 \
    deploy release "${@:2}"
}

# Images of releases that differ only in their id, which is replaced in the programs by one of the same length, and a bundle
# with the local program and Compose files without digests.
make_images() {
  local built target id program=$LINNET_ROOT/target/x86_64-unknown-linux-gnu/debug/linnet-host
  built=$(docker image inspect -f '{{index .Config.Labels "org.opencontainers.image.version"}}' linnet/shortener:development)
  first=${built%?}1 second=${built%?}2 third=${built%?}3
  if docker image inspect "$name/bundle:$third" >/dev/null 2>&1 && [[ -n ${KEEP:-} && -z ${AGAIN:-} ]]; then return 0; fi
  step "making images of the releases $first, $second and $third"
  RUSTFLAGS='-C target-feature=+crt-static' SQLX_OFFLINE=true cargo build --quiet --locked --target x86_64-unknown-linux-gnu -p linnet-host
  local context=$scratch/context
  rm -rf -- "$context"
  mkdir -p "$context/out"
  git ls-files -z deploy nginx monitoring scripts | tar --null -c -T - | tar -x -C "$context"
  sed -i -E 's/@sha256:[0-9a-f]{64}//' "$context/deploy/compose.yaml"
  # The stages behind the build, with programs that exist.
  { printf 'ARG RUST_IMAGE\nFROM scratch AS build\nCOPY out /out\n'; sed -n '/^FROM .* AS directories$/,$p' deploy/Dockerfile; } > "$context/Dockerfile"
  for target in gateway shortener; do
    id=$(docker create "linnet/$target:development" none)
    docker cp -q "$id:/linnet-$target" "$scratch/linnet-$target"
    docker rm "$id" >/dev/null
  done
  for id in "$first" "$second" "$third"; do
    for target in gateway shortener; do
      sed "s/$built/$id/g" "$scratch/linnet-$target" > "$context/out/linnet-$target"
      chmod 755 "$context/out/linnet-$target"
    done
    strip -o "$context/out/linnet-host" "$program"
    for target in gateway shortener bundle; do
      docker build -q --target "$target" --build-arg "LINNET_RELEASE=$id" -t "$name/$target:$id" \
        --build-arg "RUST_IMAGE=${LINNET_RUST_IMAGE:-$(sed -nE 's/^FROM ([^@ ]+)@[^ ]+ AS toolchain$/\1/p' deploy/Dockerfile)}" "$context" >/dev/null
    done
  done
  rm -rf -- "$context"
}

# Mixed requests at RATE a second until stop_load, which prints the counts by result.
start_load() {
  rm -f -- "$scratch/load"
  python3 "$LINNET_ROOT/scripts/test-deploy.d/load.py" "$address" "$scratch/admin_key" "${1:-100}" > "$scratch/load" &
  load_pid=$!
  sleep 2
}
stop_load() {
  kill "$load_pid"
  wait "$load_pid" || true
  load_pid=''
  cat "$scratch/load"
}
# Fails unless the load had requests and none failed.
expect_no_failures() {
  local counts
  # Not in a subshell, which could not wait for the process.
  stop_load
  counts=$(<"$scratch/load")
  [[ $counts == *'"redirect ok"'* ]] || { echo "there was no load"; return 1; }
  if grep -oE '"(redirect|create) [^"]+"' <<< "$counts" | grep -v ' ok"'; then return 1; fi
}

# expect_error CODE TEXT COMMAND…: the command must fail with the exit code and a message that contains the text.
expect_error() {
  local code=$1 text=$2 status=0 output; shift 2
  output=$("$@" 2>&1) || status=$?
  if [[ $status == "$code" && $output == *"$text"* ]]; then echo "refused: $(tail -n 1 <<< "$output")"; return 0; fi
  printf 'exit code %s instead of %s, or no "%s" in:\n%s\n' "$status" "$code" "$text" "$output"
  return 1
}

serves() { [[ $(curl -sS -m 5 -o /dev/null -w '%{http_code}' "http://$address/health") == 200 ]]; }
# expect_release ID: that release serves, nothing is open.
expect_release() {
  local status; status=$(deploy status)
  grep -q "^release   $1 " <<< "$status" || { echo "not $1: $status"; return 1; }
  if grep -q '^open' <<< "$status"; then echo "still open: $status"; return 1; fi
  serves
}
# ensure_first: checks begin with the first release and nothing open, whatever an earlier check has left.
ensure_first() {
  if deploy status | grep -q '^open'; then deploy rollback || deploy resume; fi
  if deploy status | grep -q "^release   $first "; then return 0; fi
  release "$first"
  wait_for 150 "the old color to be removed" expect_release "$first"
}
# wait_step STEP: until the open deployment has begun the step.
wait_step() { wait_for 180 "the step $1" step_began "$1"; }
step_began() { deploy status 2>/dev/null | grep -qE "^ +$1:"; }
