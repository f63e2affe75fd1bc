#!/bin/sh
# Creates the role `linnet` and makes it the owner of the database, or gives the role a new password. It runs in a pod of
# the cluster, because no other machine reaches PostgreSQL (README.md):
#
#   linnet-role.sh HOST < the administrator's password and Linnet's, a line each
#
# No password is in an argument, in the pod's definition or in a statement: psql sends the SCRAM verifier that `\password`
# computes, so neither Kubernetes' audit log nor PostgreSQL's log has it.
set -eu
host=$1
if ! { IFS= read -r PGPASSWORD && IFS= read -r password; }; then
  echo "two lines are expected: the administrator's password and Linnet's" >&2
  exit 64
fi
export PGPASSWORD PGSSLMODE="${PGSSLMODE:-require}" PGCONNECT_TIMEOUT=10

admin() { psql -h "$host" -U linnet_admin -d linnet -v ON_ERROR_STOP=1 -qAt "$@"; }

if [ "$(admin -c "SELECT count(*) FROM pg_roles WHERE rolname = 'linnet'" < /dev/null)" = 0 ]; then
  admin -c 'CREATE ROLE linnet LOGIN' < /dev/null
fi
# psql asks twice, and reads standard input where there is no terminal.
said=$(printf '%s\n%s\n' "$password" "$password" | admin -c '\password linnet' 2>&1) || { echo "$said" >&2; exit 1; }
admin -c 'GRANT linnet TO linnet_admin' -c 'ALTER DATABASE linnet OWNER TO linnet' -c 'ALTER SCHEMA public OWNER TO linnet' < /dev/null
PGPASSWORD=$password psql -h "$host" -U linnet -d linnet -qAt -c 'SELECT 1' < /dev/null > /dev/null
echo "the role linnet owns the database and can log in"
