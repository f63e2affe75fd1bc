#!/bin/sh
# PostgreSQL's archive_command: archive.sh PATH NAME. Copies a closed WAL segment into the folder from which the sidecar
# `backup` pushes it, and returns 0 only when the copy is on the disk.
#
# - The copy gets its name last, so that the sidecar never pushes an unfinished one.
# - PostgreSQL repeats the call after a crash. The same segment again is a success, another one of that name an error.
# - A segment that archive_timeout closed early is zero at its end. A hole takes no space there.
set -eu

folder=${LINNET_ARCHIVE_DIR:-/var/lib/linnet/archive}
source=$1 name=$2

case $name in
  ''|*[!0-9A-Za-z.]*|.*) echo "archive.sh: '$name' is no name of a WAL segment" >&2; exit 2 ;;
esac
copy=$folder/.$name.part

if [ -e "$folder/$name" ]; then
  if cmp -s -- "$source" "$folder/$name"; then
    # The call before may have been killed before the name was on the disk.
    sync -- "$folder"
    exit 0
  fi
  echo "archive.sh: $folder/$name exists with other content; another database may use this folder" >&2
  exit 1
fi
if ! cp --sparse=always -- "$source" "$copy" || ! sync -- "$copy"; then
  rm -f -- "$copy"
  echo "archive.sh: $name cannot be copied to $folder; free space on its disk" >&2
  exit 1
fi
mv -T -- "$copy" "$folder/$name"
sync -- "$folder"
