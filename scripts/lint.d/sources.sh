# shellcheck shell=bash
# The checks of scripts/lint for text and structure of all sources. The Python scripts beside this file need no package.

# run_check NAME: runs scripts/lint.d/NAME.py.
run_check() {
  "$LINNET_ROOT/scripts/install-packages" python3 git
  python3 -B "$LINNET_ROOT/scripts/lint.d/$1.py"
}

check_prose() { run_check prose; }

check_documents() { run_check documents; }

check_modules() { run_check modules; }

check_sizes() { run_check sizes; }

check_spelling() {
  local linters
  linters=$("$LINNET_ROOT/scripts/python-tools")
  "$linters/typos" --config "$LINNET_ROOT/_typos.toml" --format brief --sort
}

# The checks above, `make drill`, `make test-chaos`, `make test-cluster` and Terraform: types (but of the two tests), and tests, in which each check fails.
check_lints() (
  local python work folder status=0
  python=$("$LINNET_ROOT/scripts/python-tools")/python
  work=$(mktemp -d "${TMPDIR:-/tmp}/linnet-lint.XXXXXX")
  # shellcheck disable=SC2064 # expand the folder's name now
  trap "rm -rf -- '$work'" EXIT
  for folder in lint.d drill.d test-chaos.d test-cluster.d terraform.d; do
    cd "$LINNET_ROOT/scripts/$folder" || return 1
    if [[ $folder != test-c* ]]; then
      MYPYPATH=. "$python" -m mypy --strict --no-error-summary --cache-dir "$work/mypy" ./*.py tests/*.py || status=1
    fi
    if ! PYTHONPATH=.:../checks.d:../test-chaos.d "$python" -B -m unittest discover --start-directory tests > "$work/out" 2>&1; then
      cat "$work/out" >&2
      status=1
    fi
    info "$folder: $(grep -E '^Ran ' "$work/out" || true)"
  done
  return "$status"
)
