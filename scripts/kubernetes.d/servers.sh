# shellcheck shell=bash
# A PostgreSQL and an S3 server on loopback for the tests of backups. Source it after lib.sh, with `folder`, an empty one.
#
#   as                   array: a prefix for commands that may not be root's, empty if the caller is not root
#   start_s3             serves $folder/bucket, with the bucket `backups`; sets `port` and the environment of its credentials
#   start_postgres CONF  a cluster in $folder/source with the database linnet, one user and two links
#   sql TEXT [DATABASE]  runs a statement in it
#
# Both end with the script.

# shellcheck disable=SC2154 # the script that sources this file sets it
mkdir -p "$folder"/{bin,bucket/backups,socket}
export HOME=$folder PATH=$folder/bin:$bin:$PATH
as=()
s3_server=''

stop_servers() {
  "${as[@]}" pg_ctl --pgdata "$folder/source" --mode immediate stop >/dev/null 2>&1 || true
  [[ -z $s3_server ]] || kill "$s3_server" 2>/dev/null || true
}

# Call it when all files that root writes are in the folder.
use_another_user() {
  if is_root; then
    # PostgreSQL refuses to run as root.
    chown -R 65534:65534 "$folder"
    as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
  fi
}

start_s3() {
  local deadline=$((SECONDS + 30))
  export AWS_ACCESS_KEY_ID=linnet AWS_SECRET_ACCESS_KEY=linnet-secret AWS_DEFAULT_REGION=us-east-1
  # Without a function: its subshell would be killed instead of the server.
  # shellcheck disable=SC2154 # the script sets it
  "${as[@]}" rclone serve s3 --addr "127.0.0.1:$port" --auth-key linnet,linnet-secret "$folder/bucket" > "$folder/s3.log" 2>&1 &
  s3_server=$!
  until (exec 3<> "/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    (( SECONDS < deadline )) || { cat "$folder/s3.log" >&2; die "the S3 server does not accept connections"; }
    sleep 0.1
  done
}

sql() {
  "${as[@]}" psql --no-psqlrc --quiet --tuples-only --no-align --host "$folder/socket" --username postgres --dbname "${2:-linnet}" --command "$1"
}

start_postgres() {
  "${as[@]}" initdb --pgdata "$folder/source" --username postgres --auth trust --data-checksums >/dev/null
  printf "listen_addresses = ''\nunix_socket_directories = '%s'\nshared_buffers = 16MB\n%s\n" "$folder/socket" "$1" \
    | "${as[@]}" tee -a "$folder/source/postgresql.conf" >/dev/null
  "${as[@]}" pg_ctl --pgdata "$folder/source" --log "$folder/source.log" --timeout 60 --wait start >/dev/null \
    || { tail -n 20 "$folder/source.log" >&2; exit 1; }
  sql 'CREATE DATABASE linnet' postgres
  sql 'CREATE TABLE urls (id int); CREATE TABLE users (id int); INSERT INTO urls VALUES (1), (2); INSERT INTO users VALUES (1)'
}
