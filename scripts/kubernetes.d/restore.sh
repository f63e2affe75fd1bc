#!/usr/bin/env bash
# Tests deploy/kubernetes/components/postgres/restore-test.sh with a real PostgreSQL, the real programs of Barman and an S3 server on
# loopback. It makes a backup, changes data afterwards, and adds a newer backup that failed: the script must restore the complete
# backup and the changes after it.
#
#   scripts/kubernetes.d/restore.sh FOLDER      an empty folder for everything; starts nothing outside it
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

folder=${1:?must be an empty folder}
bin=$(postgres_bin "")
script=$LINNET_ROOT/deploy/kubernetes/components/postgres/restore-test.sh
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# shellcheck source=scripts/kubernetes.d/servers.sh
source "$LINNET_ROOT/scripts/kubernetes.d/servers.sh"
cp "$script" "$folder/restore-test.sh"
# The folder of the tools may be root's alone.
cp "$("$LINNET_ROOT/scripts/rclone")" "$folder/bin/rclone"

# The programs of Barman, with the address of the server. In a cluster, the bucket's region has it.
for program in backup backup-list restore wal-archive wal-restore; do
  real=$(find_binary "barman-cloud-$program")
  printf '#!/bin/sh\nexec %q --endpoint-url http://127.0.0.1:%s "$@"\n' "$real" "$port" > "$folder/bin/barman-cloud-$program"
done
chmod 755 "$folder"/bin/*
export DESTINATION=s3://backups/postgres SERVER=postgres
use_another_user
trap stop_servers EXIT
start_s3
start_postgres "archive_mode = on
archive_command = 'barman-cloud-wal-archive --cloud-provider aws-s3 $DESTINATION $SERVER %p'
max_connections = 360"

user() { "${as[@]}" "$@"; }
run() { FOLDER=$folder/$1 user bash "$folder/restore-test.sh" > "$folder/$1.out" 2>&1; }
# fails NAME TEXT: the script must fail, with this text.
fails() {
  user mkdir -p "$folder/$1"
  if run "$1"; then die "the restore test succeeds, although $2"; fi
  grep -q -- "$2" "$folder/$1.out" || { cat "$folder/$1.out" >&2; die "the restore test fails for another reason than: $2"; }
}
fails none 'there is no complete backup'
user barman-cloud-backup --cloud-provider aws-s3 --immediate-checkpoint --host "$folder/socket" --user postgres "$DESTINATION" "$SERVER" \
  > "$folder/backup.out" 2>&1 || { tail -n 20 "$folder/backup.out" "$folder/s3.log" >&2; die "the backup failed"; }
sql 'INSERT INTO urls VALUES (3)'
wal=$(sql 'SELECT pg_walfile_name(pg_current_wal_lsn())')
sql 'SELECT pg_switch_wal()' >/dev/null
deadline=$((SECONDS + 60))
until [[ $(sql 'SELECT last_archived_wal FROM pg_stat_archiver') == "$wal" ]]; do
  (( SECONDS < deadline )) || { tail -n 20 "$folder/source.log" >&2; die "WAL does not reach the bucket"; }
  sleep 0.2
done
base=$folder/bucket/backups/postgres/postgres/base
complete=$(find "$base" -mindepth 1 -maxdepth 1 -printf '%f\n')
newer=$(date --utc +%Y%m%dT%H%M)59
user cp -r "$base/$complete" "$base/$newer"
user sed -i 's/^status=DONE/status=FAILED/' "$base/$newer/backup.info"

user mkdir -p "$folder/restored"
run restored || { cat "$folder/restored.out" >&2; die "the restore test fails"; }
grep -q "restored the newest backup, $complete," "$folder/restored.out" || { cat "$folder/restored.out" >&2; die "it restored another backup than $complete"; }
grep -q 'restored 3 links and 1 users' "$folder/restored.out" || { cat "$folder/restored.out" >&2; die "the change after the backup is missing"; }
tail -n 1 "$folder/restored.out"
MAX_BACKUP_AGE_S=-1 fails old 'more than -1; check the ScheduledBackup'
