#!/bin/sh
# Creates the role `linnet` and makes it the owner of the database, and the role `exporter`, which reads figures; or gives them new
# passwords. It runs in a pod of the cluster, because no other machine reaches PostgreSQL (README.md):
#
#   linnet-role.sh HOST < the passwords of the administrator, of `linnet` and of `exporter`, a line each
#
# No password is in an argument, in the pod's definition or in a statement: psql sends the SCRAM verifier that `\password`
# computes, so neither Kubernetes' audit log nor PostgreSQL's log has it.
set -eu
host=$1
if ! { IFS= read -r PGPASSWORD && IFS= read -r linnet && IFS= read -r exporter; }; then
  echo "three lines are expected: the passwords of the administrator, of linnet and of exporter" >&2
  exit 64
fi
export PGPASSWORD PGSSLMODE="${PGSSLMODE:-require}" PGCONNECT_TIMEOUT=10

admin() { psql -h "$host" -U linnet_admin -d linnet -v ON_ERROR_STOP=1 -qAt "$@"; }

# role NAME PASSWORD
role() {
  if [ "$(admin -c "SELECT count(*) FROM pg_roles WHERE rolname = '$1'" < /dev/null)" = 0 ]; then
    admin -c "CREATE ROLE $1 LOGIN" < /dev/null
  fi
  # psql asks twice, and reads standard input where there is no terminal.
  said=$(printf '%s\n%s\n' "$2" "$2" | admin -c "\\password $1" 2>&1) || { echo "$said" >&2; exit 1; }
}

role linnet "$linnet"
role exporter "$exporter"
admin -c 'GRANT linnet TO linnet_admin' -c 'ALTER DATABASE linnet OWNER TO linnet' -c 'ALTER SCHEMA public OWNER TO linnet' \
  -c 'REVOKE CONNECT ON DATABASE linnet FROM PUBLIC' -c 'GRANT CONNECT ON DATABASE linnet TO exporter' \
  -c 'GRANT pg_monitor TO exporter' -c 'ALTER ROLE exporter CONNECTION LIMIT 5' < /dev/null
PGPASSWORD=$linnet psql -h "$host" -U linnet -d linnet -qAt -c 'SELECT 1' < /dev/null > /dev/null
PGPASSWORD=$exporter psql -h "$host" -U exporter -d linnet -qAt -c 'SELECT 1' < /dev/null > /dev/null
echo "the role linnet owns the database, and both roles can log in"
