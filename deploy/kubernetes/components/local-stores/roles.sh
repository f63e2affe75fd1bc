#!/usr/bin/env bash
# Runs once, when the database is created. The role linnet owns its database and is no superuser; the exporter reads
# statistics.
set -euo pipefail
psql -v ON_ERROR_STOP=1 -q -U "$POSTGRES_USER" -d postgres \
  -v password="$(< /run/secrets/postgres_password)" -v exporter="$(< /run/secrets/postgres_exporter_password)" <<'SQL'
CREATE ROLE linnet LOGIN PASSWORD :'password';
CREATE DATABASE linnet OWNER linnet;
REVOKE CONNECT ON DATABASE linnet FROM PUBLIC;
CREATE ROLE exporter LOGIN CONNECTION LIMIT 5 IN ROLE pg_monitor PASSWORD :'exporter';
GRANT CONNECT ON DATABASE linnet TO exporter;
SQL
