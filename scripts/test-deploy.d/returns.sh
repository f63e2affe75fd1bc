# shellcheck shell=bash disable=SC2154,SC2016 # variables of helpers.sh; scripts for the server
# Checks of scripts/test-deploy for ways back and ways on that must not depend on the fault that they answer.

checks+=(init_values during_warm three_releases unreachable unwritable in_place_rollback refused_rollback killed_restore)

# Options that `init` does not name stay, with the settings that the operator has added.
check_init_values() {
  # The order may differ, and with it the line that has no comma.
  values() { on_server cat /etc/linnet/host.json /etc/linnet/init.env | sed 's/,$//' | sort; }
  local before; before=$(values)
  "$deploy_sh" init "$server" --domain "$domain" --email ops@example.com --dns-later | tail -n 1 | grep -qx 'nothing changed'
  "$deploy_sh" init "$server" --domain "$domain" --email ops@example.com --dns-later --profiles monitoring
  on_server grep -qF '"profiles": ["monitoring"]' /etc/linnet/host.json
  on_server grep -qF '"backup": "file:///repository"' /etc/linnet/host.json
  "$deploy_sh" init "$server" --domain "$domain" --email ops@example.com --dns-later --profiles ''
  [[ $(values) == "$before" ]]
  echo "options that were not named, and added settings, kept their values"
}

# A release while the old color of the one before is warm.
check_during_warm() {
  ensure_first
  start_load 60
  release "$second"
  step_began Warm
  release "$third"
  expect_no_failures
  deploy rollback
  expect_release "$second"
}

# nginx and PostgreSQL have files of their own release mounted, which is no longer the one before.
check_three_releases() {
  local id
  for id in "$second" "$third" "$second" "$first"; do
    release "$id"
    wait_for 150 "the old color to be removed" expect_release "$id"
  done
  on_server sh -c 'ls /opt/linnet/releases | wc -l'
  deploy check
  docker restart -t 60 "$machine" >/dev/null
  find_server
  wait_for 120 "the service after a restart" serves
  wait_for 60 "SSH" expect_release "$first"
  echo "all containers started again after three releases"
}

# Only nginx notices the mode of the socket: the program on the server is root.
hide_new() { on_server sh -c 'chmod 600 "$(docker volume inspect -f "{{.Mountpoint}}" linnet_redirects)/$0.sock"' "$(new_color)"; }
check_unreachable() { during Canary10 'reached the new color\|through nginx' hide_new; }

# Neither records nor the state can be written, as with a full disk.
read_only() {
  on_server sh -c 'for f in releases state; do mount --bind /var/lib/linnet/$f /var/lib/linnet/$f && mount -o remount,bind,ro /var/lib/linnet/$f; done'
}
check_unwritable() {
  ensure_first
  local old status=0
  old=$(deploy status | sed -nE 's/^release .*\((blue|green)\).*/\1/p')
  start_load 60
  release "$second" > "$scratch/client" 2>&1 &
  local client=$!
  wait_step Canary10
  read_only
  kill_new
  wait_for 30 "the slots to lead to $old" only "$old" || status=1
  on_server umount /var/lib/linnet/releases /var/lib/linnet/state
  wait "$client" || true
  stop_load
  cat "$scratch/client"
  deploy rollback || status=1
  expect_release "$first" || status=1
  return "$status"
}
only() { on_server sh -c 'docker exec "$(docker ps -qf label=com.docker.compose.service=nginx)" sh /etc/nginx/slots.sh' | grep -q "resolve .*$1=10"; }

check_in_place_rollback() {
  ensure_first
  release "$second" --in-place
  deploy rollback
  expect_release "$first"
}

# Its exit code is not 0, and the release stays.
check_refused_rollback() {
  ensure_first
  release "$second"
  wait_for 150 "the old color to be removed" expect_release "$second"
  with_setting memory_reserve_mib 9999999 expect_error 1 'MiB of memory are free' deploy rollback
  expect_release "$second"
  deploy rollback
  expect_release "$first"
}

# The client of a restore dies, and once more its unit. Both leave a service that one command starts.
check_killed_restore() {
  ensure_first
  wait_for 120 "the first backup" has_backup
  setsid "$deploy_sh" restore "$server" > "$scratch/client" 2>&1 &
  local client=$!
  wait_for 120 "the service to stop" on_server test -e /var/lib/linnet/state/restore
  kill -KILL -- "-$client"
  expect_error 75 'a restore is running' deploy rollback
  wait_for 300 "the restore to end" on_server sh -c '! test -e /var/lib/linnet/state/restore && ! systemctl is-active --quiet linnet-deploy'
  wait_for 60 "the service" expect_release "$first"
  on_server journalctl --unit=linnet-deploy --output=cat --lines=50 | grep -qF 'migrating the schema'
  "$deploy_sh" restore "$server" > "$scratch/client" 2>&1 &
  client=$!
  wait_for 120 "the service to stop" on_server test -e /var/lib/linnet/state/restore
  on_server systemctl kill --signal=KILL linnet-deploy
  wait "$client" || true
  deploy status | grep '^restore   it was interrupted'
  expect_error 75 'a restore was interrupted' release "$second"
  deploy resume
  wait_for 60 "the service" expect_release "$first"
  on_server sh -c '! test -e /var/lib/linnet/state/restore'
  echo "two interrupted restores were completed"
}
