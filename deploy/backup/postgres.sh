#!/bin/sh
# Entry point of the container `postgres` with backups (compose.backup.yaml): adds the archiving of WAL to the command of
# compose.yaml.
#
# archive_timeout bounds what a lost disk costs: a segment is closed at most 30 s after its first write. pgBackRest
# refuses an archive_command without its name, hence the comment.
set -eu
exec docker-entrypoint.sh "$@" -carchive_mode=on -carchive_timeout=30 '-carchive_command=/archive.sh %p %f # pgbackrest'
