#!/usr/bin/env bash
# Tests deploy/kubernetes/components/aws/dump.py with a real PostgreSQL and an S3 server on loopback: a dump is stored and restored,
# a dump that fails leaves no object, and the restore test finds a missing, old, damaged and empty one.
#
#   scripts/kubernetes.d/dump.sh FOLDER      an empty folder for everything; starts nothing outside it
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

folder=${1:?must be an empty folder}
bin=$(postgres_bin "")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# shellcheck source=scripts/kubernetes.d/servers.sh
source "$LINNET_ROOT/scripts/kubernetes.d/servers.sh"
cp "$LINNET_ROOT/deploy/kubernetes/components/aws/dump.py" "$folder/"
cp "$("$LINNET_ROOT/scripts/rclone")" "$folder/bin/rclone"
mkdir "$folder/broken"
printf '#!/bin/sh\nhead -c 300000 /dev/zero\nexit 1\n' > "$folder/broken/pg_dump"
chmod 755 "$folder/broken/pg_dump"
printf 's3://backups?region=us-east-1&endpoint=http://127.0.0.1:%s' "$port" > "$folder/bucket-url"
printf 'postgres://postgres@/linnet?host=%s' "$folder/socket" > "$folder/postgres-url"
export BUCKET_FILE=$folder/bucket-url POSTGRES_URL_FILE=$folder/postgres-url
use_another_user
trap stop_servers EXIT
start_s3
start_postgres ''

dumps=$folder/bucket/backups/dumps
# dump NAME COMMAND: runs it; its output is in $folder/NAME.out.
dump() {
  mkdir -p "$folder/$1"
  if is_root; then chown 65534:65534 "$folder/$1"; fi
  FOLDER=$folder/$1 "${as[@]}" timeout 120 python3 -B "$folder/dump.py" "$2" > "$folder/$1.out" 2>&1
}
# fails NAME COMMAND TEXT: it must fail, with this text.
fails() {
  if dump "$1" "$2"; then die "$2 succeeds, although $3"; fi
  grep -q -- "$3" "$folder/$1.out" || { cat "$folder/$1.out" "$folder/s3.log" >&2; die "$2 fails for another reason than: $3"; }
}

fails none restore-test 'there is no dump'
PATH=$folder/broken:$PATH fails broken backup 'pg_dump exited with 1'
[[ -z $(find "$folder/bucket" -type f -print -quit) ]] || die "a dump that failed left an object"
dump stored backup || { cat "$folder/stored.out" "$folder/s3.log" >&2; die "the dump fails"; }
dump restored restore-test || { cat "$folder/restored.out" >&2; die "the restore test fails"; }
grep -q 'restored dumps/.*: 2 links and 1 users' "$folder/restored.out" || { cat "$folder/restored.out" >&2; die "it restored something else"; }
cat "$folder/stored.out" "$folder/restored.out"
MAX_BACKUP_AGE_S=-1 fails old restore-test 'more than -1; check the CronJob backup'
newest=$(find "$dumps" -name '*.dump')
size=$(stat --format %s "$newest")
"${as[@]}" truncate --size $((size * 2 / 3)) "$newest"
fails damaged restore-test 'pg_restore: '
"${as[@]}" rm "$newest"
sql 'DELETE FROM users'
dump stored backup || { cat "$folder/stored.out" >&2; die "the second dump fails"; }
fails empty restore-test 'has no user'
