# shellcheck shell=bash disable=SC2154,SC2034,SC2016 # variables of scripts/test-deploy and for its checks
# Functions for the checks of scripts/test-deploy. Source it; it runs nothing.

deploy_sh=$LINNET_ROOT/deploy/deploy.sh
domain=go.example.com
init_options=(--domain "$domain" --email ops@example.com --dns-later --backup file:///repository --backup-disk /mnt/backup)

# start_server CONTAINER DISK: a server with a folder as its second disk, reached at 127.0.0.1. An existing one is used again.
start_server() {
  machine=$1
  [[ -f $scratch/key ]] || ssh-keygen -q -t ed25519 -N '' -f "$scratch/key"
  [[ -f $scratch/ci ]] || ssh-keygen -q -t ed25519 -N '' -f "$scratch/ci"
  mkdir -p "$2"
  if ! docker inspect "$machine" >/dev/null 2>&1; then
    # Another one may be stopped, and gets its port again.
    free_port $(( 22600 + 100 * $(find "$scratch" -name '*.port' ! -name "$machine.port" | wc -l) )) > "$scratch/$machine.port"
    step "starting the server $machine"
    "$LINNET_DROPLET" "$machine" "$(<"$scratch/$machine.port")" "$scratch/key.pub" -v "$2:/mnt/backup" >/dev/null
  fi
  find_server
  # The port is open before sshd responds.
  wait_for 60 "SSH of $machine" eval 'ssh-keyscan -p "${server#*:}" 127.0.0.1 2>/dev/null | grep -q ssh-ed25519'
}
# A server may have another address after a restart.
find_server() {
  server=127.0.0.1:$(<"$scratch/$machine.port")
  address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$machine")
}

on_server() { docker exec -i "$machine" "$@"; }
# linnet_container SERVICE: prints the container's id on the server.
linnet_container() { on_server docker ps -aq --filter "label=com.docker.compose.service=$1" | head -n 1; }
deploy() { "$deploy_sh" "$1" "$server" "${@:2}"; }

# release ID [OPTIONS]: deploys the local images of that id.
release() {
  with_images "$1" deploy release "${@:2}"
}
# with_images ID COMMAND…
with_images() {
  local image
  for image in gateway shortener bundle acme backup; do local -x "LINNET_${image^^}_IMAGE=$name/$image:$1"; done
  "${@:2}"
}

# Images of releases that differ only in their id, which is replaced in the programs by one of the same length, and a bundle
# with the local program, Compose files without digests, and what leads the ACME client to Pebble.
make_images() {
  local built target id triple=x86_64-unknown-linux-gnu context=$scratch/context
  local folder=${CARGO_TARGET_DIR:-$LINNET_ROOT/target}
  # Local builds have this release, unless LINNET_RELEASE was set.
  built=${LINNET_RELEASE:-development}
  if [[ -z ${SHORTENER_PROGRAM:-} ]]; then
    built=$(docker image inspect -f '{{index .Config.Labels "org.opencontainers.image.version"}}' linnet/shortener:development)
  fi
  first=${built%?}1 second=${built%?}2 third=${built%?}3
  if docker image inspect "$name/bundle:$third" >/dev/null 2>&1 && [[ -n ${KEEP:-} && -z ${AGAIN:-} ]]; then return 0; fi
  step "making images of the releases $first, $second and $third"
  # Static, as in deploy/Dockerfile. Others may need libraries, which their images get, so that they need no second build of
  # all crates.
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --quiet --locked --target "$triple" -p linnet-host --bin linnet-host --example bad_release
  if [[ -z ${ACME_PROGRAM:-} || -z ${BACKUP_PROGRAM:-} ]]; then SQLX_OFFLINE=true cargo build --quiet --locked -p linnet-acme -p linnet-backup; fi
  rm -rf -- "$context"
  mkdir -p "$context/out/certificates" "$context/out/challenges" "$context/libraries"
  chmod 2750 "$context/out/certificates"; chmod 2755 "$context/out/challenges"
  git ls-files -z deploy nginx monitoring scripts | tar --null -c -T - | tar -x -C "$context"
  sed -i -E 's/@sha256:[0-9a-f]{64}//' "$context/deploy/compose.yaml"
  cp "$LINNET_ROOT/scripts/test-deploy.d/compose.server.yaml" "$context/deploy/"
  # The stages behind the build, with programs that exist.
  { printf 'ARG RUST_IMAGE\nARG POSTGRES_IMAGE\nFROM scratch AS build\nCOPY out /out\nFROM scratch AS libraries\nCOPY libraries /\n'
    sed -n '/^FROM .* AS directories$/,$p' deploy/Dockerfile | sed -E 's/^FROM scratch AS (gateway|shortener|acme)$/FROM libraries AS \1/'; } > "$context/Dockerfile"
  for target in gateway shortener; do
    local given=${target^^}_PROGRAM
    if [[ -n ${!given:-} ]]; then strip -o "$scratch/linnet-$target" "${!given}"; continue; fi
    id=$(docker create "linnet/$target:development" none)
    docker cp -q "$id:/linnet-$target" "$scratch/linnet-$target"
    docker rm "$id" >/dev/null
  done
  strip -o "$context/out/linnet-host" "$folder/$triple/debug/linnet-host"
  strip -o "$context/out/linnet-acme" "${ACME_PROGRAM:-$folder/debug/linnet-acme}"
  strip -o "$context/out/linnet-backup" "${BACKUP_PROGRAM:-$folder/debug/linnet-backup}"
  strip -o "$scratch/bad_release" "$folder/$triple/debug/examples/bad_release"
  for target in "$context/out/linnet-acme" "$scratch/linnet-gateway" "$scratch/linnet-shortener"; do
    # It fails for a static program.
    { ldd "$target" 2>/dev/null || true; } | { grep -oE '/[^ ]+' || true; } | while read -r library; do
      install -D "$library" "$context/libraries$library"
    done
  done
  for id in "$first" "$second" "$third"; do
    for target in gateway shortener; do
      python3 scripts/test-deploy.d/rename.py "$built" "$id" "$scratch/linnet-$target" "$context/out/linnet-$target"
      chmod 755 "$context/out/linnet-$target"
    done
    for target in gateway shortener bundle; do build_target "$target" "$id"; done
    # Packages are installed once.
    for target in acme backup; do
      if [[ $id == "$first" ]]; then build_target "$target" "$id"; else derived "$target" "$first" "$id" "LABEL org.opencontainers.image.version=$id"; fi
    done
  done
  rm -rf -- "$context"
}
# shellcheck disable=SC2086 # a list of options
build_target() {
  docker build ${LINNET_BUILD_OPTIONS:-} -q --target "$1" --build-arg "LINNET_RELEASE=$2" -t "$name/$1:$2" \
    --build-arg "RUST_IMAGE=${LINNET_RUST_IMAGE:-$(sed -nE 's/^FROM ([^@ ]+)@[^ ]+ AS toolchain$/\1/p' deploy/Dockerfile)}" \
    --build-arg "POSTGRES_IMAGE=$(sed -nE 's/^FROM ([^@ ]+)@[^ ]+ AS database$/\1/p' deploy/Dockerfile)" "$context" >/dev/null
}
# derived TARGET BASE TAG LINE…: an image of the release BASE with further lines of a Dockerfile, and bad_release in its context.
derived() {
  local target=$1 base=$2 tag=$3 folder; shift 3
  folder=$(mktemp -d "$scratch/derived.XXXXXX")
  cp "$scratch/bad_release" "$folder/"
  { printf 'FROM %s/%s:%s\n' "$name" "$target" "$base"; printf '%s\n' "$@"; } > "$folder/Dockerfile"
  docker build -q -t "$name/$target:$tag" "$folder" >/dev/null
  rm -rf -- "$folder"
}

# Mixed requests at RATE a second until stop_load, which prints the counts by result.
start_load() {
  rm -f -- "$scratch/load"
  python3 "$LINNET_ROOT/scripts/test-deploy.d/load.py" "$address" "$scratch/admin_key" "${1:-100}" "$(root_certificate)" > "$scratch/load" &
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

# So that a release takes less than a minute, also without requests.
shorter_steps() { on_server sed -i 's/^{/{\n  "warm_seconds": 20,\n  "bake_seconds": 8,\n  "longest_bake_seconds": 12,/' /etc/linnet/host.json; }
default_steps() { on_server sed -i '/"warm_seconds"/d; /"bake_seconds"/d; /"longest_bake_seconds"/d' /etc/linnet/host.json; }
# The certificate of Pebble under which the server's own was issued.
root_certificate() { printf '%s/%s.root.pem\n' "$scratch" "$machine"; }
# web PATH [OPTIONS]: a request over HTTPS, which fails with a certificate that is not the CA's.
web() { curl -sS -m 5 --resolve "$domain:443:$address" --cacert "$(root_certificate)" "https://$domain$1" "${@:2}"; }
serves() { [[ $(web /health -o /dev/null -w '%{http_code}') == 200 ]]; }
# api METHOD PATH BODY
api() { web "$2" -X "$1" -H "Authorization: Bearer $(<"$scratch/admin_key")" -H 'Content-Type: application/json' -d "$3"; }
# figure WHAT VALUE [BAR]: a line of the table of figures.
figure() { printf '| %s | %s | %s |\n' "$1" "$2" "${3:-}" | tee -a "$scratch/figures"; }
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
