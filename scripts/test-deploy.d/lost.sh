# shellcheck shell=bash disable=SC2154,SC2016 # variables of helpers.sh; scripts for the server
# Checks of scripts/test-deploy for backups: a copy of the secrets, and a new server in the place of a lost one.

if [[ ,${ONLY:-}, == *,large,* ]]; then checks+=(large); fi
checks+=(new_server)

# links COUNT FILE: creates links and notes their codes.
links() {
  local index
  for (( index = 0; index < $1; index++ )); do
    api POST /api/v1/urls "{\"original_url\": \"https://target.example/$RANDOM/$index\"}" | grep -oE '"short_code":"[^"]+"' | cut -d '"' -f 4
  done > "$2"
  [[ $(wc -l < "$2") == "$1" ]]
}
# resolving STATUS FILE: all links of the file answer with the status.
resolving() {
  local code
  while read -r code; do
    [[ $(web "/$code" -o /dev/null -w '%{http_code}') == "$1" ]] || { echo "$code is not $1"; return 1; }
  done < "$2"
}

check_backup() {
  on_server docker exec "$(linnet_container postgres)" sh -c 'test "$(psql -U postgres -Atc "SHOW archive_mode")" = on'
  links 20 "$scratch/before"
  wait_for 120 "the first backup" has_backup
  take_backup
  printf 'a passphrase of the test' > "$scratch/passphrase"
  LINNET_PASSPHRASE_FILE=$scratch/passphrase "$deploy_sh" secrets export "$server" > "$scratch/secrets"
  head -n 1 "$scratch/secrets" | grep -qx 'linnet-secrets 1'
  if grep -qF "$(on_server cat /etc/linnet/secrets/backup_passphrase)" "$scratch/secrets"; then echo "a secret is readable"; return 1; fi
  printf 'another passphrase' > "$scratch/wrong"
  LINNET_PASSPHRASE_FILE=$scratch/wrong expect_error 1 'wrong passphrase' "$deploy_sh" secrets import "$server" --replace < "$scratch/secrets"
  on_server docker exec "$(linnet_container backup)" linnet-backup status | tail -n 4
}
# Only by name: as many links and clicks as the bar of a restore names.
check_large() {
  ensure_first
  local links=${LINKS:-1000000} clicks=${CLICKS:-10000000} began=$SECONDS part
  sql "INSERT INTO urls (short_code, original_url)
    SELECT 'large' || n, 'https://example.com/' || md5(n::text) || '/page' FROM generate_series(1, $links) n"
  # As the worker writes them, in one partition that is younger than their retention.
  sql "CREATE TABLE raw_clicks_of_test PARTITION OF raw_clicks FOR VALUES FROM (date_trunc('day', now()) - interval '60 days') TO (date_trunc('day', now()) - interval '30 days')"
  for (( part = clicks; part > 0; part -= 500000 )); do
    sql "INSERT INTO raw_clicks (clicked_at, url_id, agent_and_kind, visitor)
      SELECT date_trunc('day', now()) - (30.01 + 29 * random()) * interval '1 day', low + (random() * (high - low))::bigint, 0, (random() * 1e15)::bigint
      FROM (SELECT min(id) low, max(id) high FROM urls WHERE short_code LIKE 'large%') found, generate_series(1, least($part, 500000))"
  done
  echo "$links links and $clicks clicks in $(( SECONDS - began )) s"
  wait_for 1800 "the WAL to be pushed" is_pushed
  began=$SECONDS
  take_backup
  echo "$(sql "SELECT pg_size_pretty(pg_database_size('linnet'))"); WAL pushed, backup in $(( SECONDS - began )) s"
}

# After a start and a restore, the sidecar takes a backup and tests it by itself.
take_backup() {
  wait_for 600 "the sidecar to have time for a backup" has_time_for_backup
  tail -n 3 "$scratch/take"
  [[ $taken == 0 ]]
}
has_time_for_backup() {
  taken=0
  deploy backup > "$scratch/take" 2>&1 || taken=$?
  if grep -qF 'is in progress; try again' "$scratch/take"; then sleep 1; return 1; fi
}
has_backup() { on_server docker exec "$(linnet_container backup)" linnet-backup status | grep -q full; }

# The server is lost; its second disk, or what stands for a bucket, is not.
check_new_server() {
  ensure_first
  wait_for 120 "the old color to be removed" expect_release "$first"
  local moment
  moment=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  wait_for 5 "the next second" eval '[[ $(date -u +%Y-%m-%dT%H:%M:%SZ) > $moment ]]'
  links 10 "$scratch/after"
  # A minute of data may be lost, so this waits until WAL has left the server.
  sql 'SELECT pg_switch_wal()' >/dev/null
  wait_for 90 "the WAL to be pushed" is_pushed
  local size; size=$(sql "SELECT (SELECT count(*) FROM urls) || ' ' || (SELECT count(*) FROM all_clicks)" | numfmt --field=1- --to=si --round=down | tr -s ' ')
  docker kill "$machine" >/dev/null
  # The old server stays usable for other checks, so the new one gets a copy of its second disk.
  local old=$machine
  docker rm -f "$name-new" >/dev/null 2>&1 || true
  docker volume rm "$name-new-docker" >/dev/null 2>&1 || true
  rm -rf -- "$scratch/disk-new"
  cp -a "$scratch/disk" "$scratch/disk-new"
  start_server "$name-new" "$scratch/disk-new"
  local status=0
  restore_there || status=$?
  if [[ $status == 0 || -z ${KEEP:-} ]]; then
    docker rm -f "$machine" >/dev/null
    docker volume rm "$machine-docker" >/dev/null
  fi
  docker start "$old" >/dev/null
  return "$status"
}
is_pushed() { [[ $(on_server docker exec "$(linnet_container backup)" sh -c 'ls /var/lib/linnet/archive | wc -l') == 0 ]]; }

restore_there() {
  local began=$SECONDS prepared restored
  "$deploy_sh" init "root@$server" "${init_options[@]}" || return 1
  prepared=$SECONDS
  start_pebble || return 1
  # Images of others are at hand, as after a pull.
  docker save nginxinc/nginx-unprivileged:1.30.6 postgres:17.11-trixie redis:8.2.10-bookworm | on_server docker load -q || return 1
  restored=$SECONDS
  LINNET_PASSPHRASE_FILE=$scratch/passphrase "$deploy_sh" secrets import "$server" < "$scratch/secrets" || return 1
  with_images "$second" deploy restore || return 1
  wait_for 60 "a certificate" serves || return 1
  resolving 302 "$scratch/before" || return 1
  local what="new server after a lost one"
  # Others are a few kilobytes.
  if [[ $size == *M*M ]]; then what+=" with ${size% *} links and ${size#* } clicks"; fi
  figure "$what: \`init\`, then \`restore\` until links resolve (load $(cut -d ' ' -f 1 /proc/loadavg))" "$(( prepared - began )) + $(( SECONDS - restored )) s" '≤ 300 s'
  resolving 302 "$scratch/after" || return 1
  links 3 "$scratch/new" || return 1
  began=$SECONDS
  deploy restore --to "$moment" || return 1
  resolving 302 "$scratch/before" || return 1
  resolving 404 "$scratch/after" || return 1
  figure "\`restore --to TIME\` on a running server" "$(( SECONDS - began )) s"
  links 3 "$scratch/new" || return 1
  take_backup || return 1
  deploy check
}
