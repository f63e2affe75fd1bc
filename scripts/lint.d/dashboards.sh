# shellcheck shell=bash
# The check of scripts/lint for what Grafana, Loki and the shipper of the logs read, and for what checks them.

check_dashboards() (
  local python work status=0
  python=$("$LINNET_ROOT/scripts/monitoring-python")
  "$LINNET_ROOT/scripts/install-packages" promtool
  work=$(mktemp -d "${TMPDIR:-/tmp}/linnet-lint.XXXXXX")
  # shellcheck disable=SC2064 # the folder's name is known now
  trap "rm -rf -- '$work'" EXIT
  export PYTHONDONTWRITEBYTECODE=1

  "$LINNET_ROOT/scripts/dashboards" --check || status=1

  # Against the manuals: a key that Loki or Fluent Bit does not know stops the one and is passed over by the other.
  cd monitoring || return 1
  local schemas=schemas
  "$python" -m check_jsonschema --check-metaschema "$schemas"/*.json || status=1
  "$python" -m check_jsonschema --schemafile "$schemas/loki.json" loki/loki.yaml || status=1
  "$python" -m check_jsonschema --schemafile "$schemas/fluent-bit.json" fluent-bit/fluent-bit.yaml || status=1

  # What needs no Prometheus that has data: shapes, the list of what only faults fill, and whether each expression parses.
  "$python" check_expressions.py --offline || status=1
  "$python" check_expressions.py --as-rules "$work/panels.yml" || status=1
  promtool check rules --lint=none "$work/panels.yml" > "$work/out" 2>&1 || { cat "$work/out" >&2; status=1; }

  # Grafana's types and LuaJIT are part of the tests.
  MYPYPATH=.:grafana "$python" -m mypy --strict --no-error-summary --cache-dir "$work/mypy" \
    check_expressions.py grafana/generate tests/*.py || status=1
  if ! PYTHONPATH=. "$python" -m unittest discover --start-directory tests > "$work/out" 2>&1; then
    cat "$work/out" >&2
    status=1
  fi
  info "$(grep -E '^Ran ' "$work/out" || true)"
  return "$status"
)
