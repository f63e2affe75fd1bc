# shellcheck shell=bash
# The check of scripts/lint for deploy/kubernetes. `make test-kubernetes` has the slow ones.

check_kubernetes() (
  local tools work overlay status=0
  tools=$("$LINNET_ROOT/scripts/python-tools" kubernetes)
  work=$(mktemp -d "${TMPDIR:-/tmp}/linnet-lint.XXXXXX")
  # shellcheck disable=SC2064 # expand the folder's name now
  trap "rm -rf -- '$work'" EXIT
  local -a rendered=()
  "$LINNET_ROOT/scripts/kubernetes" generate --check || status=1
  for overlay in deploy/kubernetes/overlays/*/; do
    overlay=$(basename "$overlay")
    "$LINNET_ROOT/scripts/kubernetes" render "$overlay" > "$work/$overlay.yaml" || return 1
    rendered+=("$overlay=$work/$overlay.yaml")
  done
  for overlay in cluster cluster-aws; do
    "$tools/kubectl" kustomize "deploy/kubernetes/$overlay" > "$work/$overlay.yaml" || return 1
    rendered+=("$overlay=$work/$overlay.yaml")
  done
  "$tools/python" -B scripts/kubernetes.d/check.py "${rendered[@]}" || status=1
  "$tools/python" -B scripts/kubernetes.d/chart.py "$work/production.yaml" "$work/chart" || status=1
  if ! PYTHONPATH=scripts/kubernetes.d "$tools/python" -B -m unittest discover --start-directory scripts/kubernetes.d/tests > "$work/out" 2>&1; then
    cat "$work/out" >&2
    status=1
  fi
  info "${#rendered[@]} sets of manifests; $(grep -E '^Ran ' "$work/out" || true)"
  return "$status"
)
