# shellcheck shell=bash
# The check of scripts/lint for the files that Grafana, Loki and Fluent Bit read, and for the programs that check them.

check_dashboards() (
  local python work status=0
  python=$("$LINNET_ROOT/scripts/python-tools")/python
  "$LINNET_ROOT/scripts/install-packages" promtool
  work=$(mktemp -d "${TMPDIR:-/tmp}/linnet-lint.XXXXXX")
  # shellcheck disable=SC2064 # expand the folder's name now
  trap "rm -rf -- '$work'" EXIT
  export PYTHONDONTWRITEBYTECODE=1

  "$LINNET_ROOT/scripts/dashboards" --check || status=1

  # Unknown keys are errors: Loki refuses to start with one, Fluent Bit ignores it.
  cd monitoring || return 1
  local schemas=schemas
  "$python" -m check_jsonschema --check-metaschema "$schemas"/*.json || status=1
  "$python" -m check_jsonschema --schemafile "$schemas/loki.json" loki/loki.yaml || status=1
  "$python" -m check_jsonschema --schemafile "$schemas/fluent-bit.json" fluent-bit/fluent-bit.yaml || status=1

  # Checks that need no running Prometheus: syntax of every expression and entries of only-in-faults.yml.
  "$python" check_expressions.py --offline || status=1
  "$python" check_expressions.py --as-rules "$work/panels.yml" || status=1
  promtool check rules --lint=none "$work/panels.yml" > "$work/out" 2>&1 || { cat "$work/out" >&2; status=1; }

  # The tests load every dashboard with Grafana's types and run normalize.lua with LuaJIT.
  MYPYPATH=.:grafana "$python" -m mypy --strict --no-error-summary --cache-dir "$work/mypy" \
    check_expressions.py grafana/generate tests/*.py || status=1
  if ! PYTHONPATH=. "$python" -m unittest discover --start-directory tests > "$work/out" 2>&1; then
    cat "$work/out" >&2
    status=1
  fi
  info "$(grep -E '^Ran ' "$work/out" || true)"
  return "$status"
)
