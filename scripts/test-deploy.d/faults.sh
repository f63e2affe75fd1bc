# shellcheck shell=bash disable=SC2154 # variables of helpers.sh
# Checks of scripts/test-deploy for bad releases and bad servers: each ends with the old release serving.

checks+=(never_ready crash hang out_of_memory api_errors no_memory no_disk secrets_modes missing_image architecture schema registry
  host_key no_sudo)

# Its processes report another release than the images.
check_never_ready() {
  ensure_first
  local target
  for target in gateway shortener bundle acme backup; do derived "$target" "$second" never 'LABEL org.opencontainers.image.version=never'; done
  start_load 60
  expect_error 1 "instead of never" release never
  expect_no_failures
  expect_release "$first"
}

# during STEP FAULT…: deploys the second release, injects the fault at the step, and expects the return to the first one.
during() {
  local step=$1 reason=$2 client status=0 began; shift 2
  ensure_first
  start_load 100
  release "$second" > "$scratch/client" 2>&1 &
  client=$!
  wait_step "$step"
  "$@"
  began=$SECONDS
  wait "$client" || status=$?
  local took=$(( SECONDS - began ))
  stop_load
  cat "$scratch/client"
  (( status == 1 )) || { echo "exit code $status"; return 1; }
  grep -q "$reason" "$scratch/client" || { echo "the reason is not: $reason"; return 1; }
  expect_release "$first"
  (( took <= 45 )) || { echo "it took $took s"; return 1; }
  echo "reverted, and the new color removed, $took s after the fault: $(grep '^error' "$scratch/client" | tail -n 1)"
}

new_color() { deploy status | sed -nE 's/^(blue|green) .*-'"$second"',.*/\1/p'; }
kill_new() { on_server docker kill "$(linnet_container "shortener-$(new_color)")"; }
stop_new() { on_server docker kill --signal STOP "$(linnet_container "shortener-$(new_color)")"; }
squeeze_new() { on_server docker update --memory 8m --memory-swap 8m "$(linnet_container "shortener-$(new_color)")"; }
cut_new() { on_server docker network disconnect linnet_data "$(linnet_container "shortener-$(new_color)")"; }

check_crash() { during Canary10 'a process of the new color ended' kill_new; }
check_hang() { during Canary10 'could not be read' stop_new; }
check_out_of_memory() { during Canary50 'memory\|ended' squeeze_new; }
check_api_errors() { during Canary10 'requests failed\|no database connection' cut_new; }

# with_setting NAME VALUE COMMAND…: with the value in host.json.
with_setting() {
  local key=$1 value=$2 status=0; shift 2
  on_server sh -c "cp /etc/linnet/host.json /root/host.json; sed -i 's/^{/{\n  \"$key\": $value,/' /etc/linnet/host.json"
  "$@" || status=$?
  on_server sh -c 'cat /root/host.json > /etc/linnet/host.json'
  return "$status"
}

check_no_memory() {
  ensure_first
  with_setting memory_reserve_mib 9999999 expect_error 1 'MiB of memory are free and a second color needs' release "$second"
  expect_release "$first"
}

check_no_disk() {
  ensure_first
  with_setting disk_reserve_mib 999999999 expect_error 69 'MiB of disk are free' release "$second"
  # A disk without room for the images: they are not sent.
  on_server sh -c 'docker images -q "linnet-transfer/*" | sort -u | xargs -r docker rmi >/dev/null 2>&1 || true
    printf "#!/bin/sh\necho Avail; echo 100\n" > /usr/local/bin/df && chmod 755 /usr/local/bin/df'
  local status=0
  expect_error 69 'MiB of disk free, and the images need' release "$third" || status=1
  on_server rm /usr/local/bin/df
  (( status == 0 )) || return 1
  expect_release "$first"
}

check_secrets_modes() {
  ensure_first
  # The folder is repaired by the script that generates missing secrets; a file that others may write is not.
  on_server chmod 646 /etc/linnet/secrets/grafana_admin_password
  local status=0
  expect_error 1 'others may write' release "$second" || status=1
  on_server chmod 444 /etc/linnet/secrets/grafana_admin_password
  expect_release "$first"
  return "$status"
}

check_missing_image() {
  ensure_first
  local digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  expect_error 69 'registry' deploy release --image-digest "gateway=$digest" --image-digest "shortener=$digest" --image-digest "bundle=$digest"
  expect_release "$first"
}

# Images for another processor.
check_architecture() {
  ensure_first
  local target
  for target in shortener bundle acme backup; do docker tag "$name/$target:$second" "$name/$target:other"; done
  printf 'FROM scratch\nLABEL org.opencontainers.image.version=%s\nCOPY Dockerfile /\n' "$second" > "$scratch/Dockerfile"
  docker build -q --platform linux/arm64 -f "$scratch/Dockerfile" -t "$name/gateway:other" "$scratch" >/dev/null
  expect_error 69 'is for arm64 and this server is amd64' release other
  expect_release "$first"
}

# The database has a migration that the release lacks, as when a release older than the current one is deployed. Migrations
# only add, so it works.
check_schema() {
  ensure_first
  sql "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (29991231235959, 'later', true, '\\x00', 1)"
  local status=0
  release "$second" || status=1
  deploy rollback || status=1
  sql 'DELETE FROM _sqlx_migrations WHERE version = 29991231235959'
  expect_release "$first"
  return "$status"
}
sql() { on_server docker exec -i "$(linnet_container postgres)" psql -U postgres -d linnet -v ON_ERROR_STOP=1 -Atqc "$1"; }

# A registry on the server itself, which Docker asks without TLS.
check_registry() {
  ensure_first
  on_server sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker-registry' >/dev/null
  # Debian's configuration asks for a password.
  on_server sh -c 'printf "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/docker-registry}}\nhttp: {addr: \"127.0.0.1:5000\"}\n" > /etc/docker/registry/config.yml'
  on_server sh -c 'systemctl enable docker-registry && systemctl restart docker-registry' 2>/dev/null
  wait_for 20 "the registry" on_server sh -c 'ss -Hltn "sport = :5000" | grep -q .'
  local target digest; local -a digests=()
  for target in gateway shortener bundle acme backup; do
    docker save "$name/$target:$second" | on_server docker load -q >/dev/null
    on_server docker tag "$name/$target:$second" "localhost:5000/linnet/$target:second"
    digest=$(on_server docker push -q "localhost:5000/linnet/$target:second" >/dev/null && on_server docker inspect -f '{{index .RepoDigests 0}}' "localhost:5000/linnet/$target:second")
    on_server docker rmi "$name/$target:$second" "localhost:5000/linnet/$target:second" >/dev/null
    digests+=(--image-digest "$target=${digest#*@}")
  done
  on_server sed -i 's|"registry": "[^"]*"|"registry": "localhost:5000/linnet"|' /etc/linnet/host.json
  deploy release "${digests[@]}"
  deploy status | grep "^release   $second "
  deploy rollback
  # As the pipeline: with the restricted key, which knows digests only.
  ssh -p "${server#*:}" -i "$scratch/ci" -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile="$LINNET_KNOWN_HOSTS" deploy@127.0.0.1 \
    "deploy ${digests[*]//--image-digest/}"
  deploy rollback
  on_server systemctl stop docker-registry
  expect_error 69 'the registry cannot be reached' deploy release "${digests[@]/sha256:?/sha256:0}"
  expect_release "$first"
}

check_host_key() {
  cp "$LINNET_KNOWN_HOSTS" "$scratch/known"
  ssh-keygen -q -t ed25519 -N '' -f "$scratch/other" <<< y >/dev/null
  printf '[127.0.0.1]:%s %s\n' "${server#*:}" "$(cut -d ' ' -f 1,2 "$scratch/other.pub")" > "$scratch/wrong"
  LINNET_KNOWN_HOSTS=$scratch/wrong expect_error 69 'is not the one in' "$deploy_sh" status "$server"
  : > "$scratch/empty"
  LINNET_KNOWN_HOSTS=$scratch/empty expect_error 69 'is not known' "$deploy_sh" status "$server"
}

check_no_sudo() {
  on_server mv /etc/sudoers.d/linnet /root/sudoers
  local status=0
  expect_error 69 'may not use sudo' "$deploy_sh" status "$server" || status=1
  on_server mv /root/sudoers /etc/sudoers.d/linnet
  return "$status"
}
