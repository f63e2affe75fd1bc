#!/usr/bin/env bash
# Restores the newest backup and all WAL from the bucket into an empty folder, starts PostgreSQL there without a network, and
# reads every page. Exits with 1 if a restore would fail, if the backup is older than MAX_BACKUP_AGE_S, or if more than MAX_AGE_S of
# WAL is missing. The CronJob `restore-test` runs it weekly with the image of the database.
set -euo pipefail

: "${DESTINATION:?must be the path of the backups, such as s3://bucket/postgres}" "${SERVER:=postgres}"
: "${MAX_AGE_S:=1800}" "${MAX_BACKUP_AGE_S:=93600}" "${FOLDER:=/restore}"
data=$FOLDER/data socket=$FOLDER/socket
fail() { printf 'restore-test: %s\n' "$1" >&2; exit 1; }
mkdir -p "$data" "$socket"
chmod 700 "$data"
started=$SECONDS

# Only ids and names of backups are accepted. The newer word `auto` may choose a backup that failed.
list=$(timeout 300 barman-cloud-backup-list --cloud-provider aws-s3 --format json "$DESTINATION" "$SERVER") \
  || fail "the backups of $SERVER cannot be listed in $DESTINATION; check the bucket and its credentials"
newest=$(python3 -c '
import json, sys
done = [backup for backup in json.load(sys.stdin)["backups_list"] if backup["status"] == "DONE"]
print(max((backup["backup_id"] for backup in done), default=""))
' <<< "$list")
[[ -n $newest ]] || fail "there is no complete backup of $SERVER in $DESTINATION"
# The id is the time at which the backup began, in UTC: 20261128T031700.
began=$(date --utc --date "${newest:0:8} ${newest:9:2}:${newest:11:2}:${newest:13:2}" +%s)
age=$(( $(date +%s) - began ))
(( age <= MAX_BACKUP_AGE_S )) || fail "the newest backup, $newest, is $age s old, more than $MAX_BACKUP_AGE_S; check the ScheduledBackup"

timeout 7200 barman-cloud-restore --cloud-provider aws-s3 "$DESTINATION" "$SERVER" "$newest" "$data" \
  || fail "the newest backup of $SERVER cannot be restored from $DESTINATION; check the bucket and its credentials"
printf 'restored the newest backup, %s, in %s s\n' "$newest" "$((SECONDS - started))"

# The operator's settings name files and sizes of the cluster's pods. This file overrides them.
cat > "$data/postgresql.auto.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$socket'
shared_buffers = '128MB'
max_connections = '360'
shared_preload_libraries = ''
archive_mode = 'off'
logging_collector = 'off'
log_destination = 'stderr'
ssl = 'off'
hot_standby = 'on'
recovery_target_timeline = 'latest'
restore_command = 'timeout 300 barman-cloud-wal-restore --cloud-provider aws-s3 $DESTINATION $SERVER %f %p'
CONF
printf 'local all all trust\n' > "$data/pg_hba.conf"
rm -f "$data/standby.signal"
touch "$data/recovery.signal"

timeout 7200 pg_ctl --pgdata "$data" --log "$FOLDER/log" --timeout 7200 --wait start \
  || { tail -n 20 "$FOLDER/log" >&2; fail "the restored database does not start"; }
trap 'pg_ctl --pgdata "$data" --mode immediate stop >/dev/null 2>&1 || true' EXIT
sql() { psql --no-psqlrc --tuples-only --no-align --host "$socket" --username postgres --dbname linnet --command "$1"; }

deadline=$((SECONDS + 3600))
while [[ $(sql 'SELECT pg_is_in_recovery()') == t ]]; do
  (( SECONDS < deadline )) || fail "recovery did not end within an hour"
  sleep 1
done

# Reading each page verifies its checksum.
timeout 3600 pg_dump --host "$socket" --username postgres --dbname linnet --format custom --compress 0 --no-sync --file /dev/null \
  || fail "a table of the restored database cannot be read"
links=$(sql 'SELECT count(*) FROM urls')
users=$(sql 'SELECT count(*) FROM users')
# Workers record their maintenance every few minutes, so an installation never stops to write WAL.
age=$(sql 'SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())::bigint')
printf 'restored %s links and %s users; the newest transaction is %s s old; %s s in total\n' "$links" "$users" "$age" "$((SECONDS - started))"
(( users > 0 )) || fail "the restored database has no user"
(( age <= MAX_AGE_S )) || fail "the newest restored transaction is $age s old, more than $MAX_AGE_S; check that WAL reaches the bucket"
