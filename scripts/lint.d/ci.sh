# shellcheck shell=bash
# The checks of scripts/lint for files that no compiler reads: YAML, GitHub workflows, Dockerfiles, Compose files and systemd
# units.
#
# A check fails when its linter cannot be installed. Skipping it silently would report success for files that were never
# checked.

# Sets `files` to the repository's files that match the patterns, untracked ones included. Fails without a match: a
# check of no files would always pass.
find_files() {
  local file
  files=()
  while IFS= read -r -d '' file; do
    if [[ -f $file ]]; then files+=("$file"); fi
  done < <(git ls-files -z --cached --others --exclude-standard -- "$@")
  if (( ${#files[@]} == 0 )); then
    fail "no file matches $*"
    return 1
  fi
}

check_yaml() {
  local linters
  linters=$("$LINNET_ROOT/scripts/python-tools")
  local -a files
  find_files '*.yml' '*.yaml'
  "$linters/yamllint" --strict --format parsable -- "${files[@]}"
  info "${#files[@]} files"
}

# GitHub's files: validity (schema, actionlint) and security (zizmor).
check_ci() {
  local linters
  linters=$("$LINNET_ROOT/scripts/python-tools")
  "$LINNET_ROOT/scripts/install-packages" shellcheck
  local status=0
  local -a files online=(--offline)
  # With a token, zizmor also verifies at GitHub that each pinned commit belongs to its action and to the version in the
  # comment.
  if [[ -n ${GH_TOKEN:-} ]]; then online=(); fi
  find_files '.github/workflows/*.yml' '.github/workflows/*.yaml'
  "$linters/check-jsonschema" --builtin-schema vendor.github-workflows "${files[@]}" || status=1
  # actionlint's checks, with shellcheck for the embedded scripts. Security is zizmor's part.
  "$linters/jactionlint" --profile correctness --strict-exit "${files[@]}" || status=1
  find_files .github/dependabot.yml
  "$linters/check-jsonschema" --builtin-schema vendor.dependabot "${files[@]}" || status=1
  "$linters/zizmor" --quiet --no-progress --persona auditor "${online[@]}" .github || status=1
  return "$status"
}

check_containers() {
  local linters status=0
  linters=$("$LINNET_ROOT/scripts/python-tools")
  local -a files
  find_files '*Dockerfile' '*Dockerfile.*' '*.Dockerfile' ':!*.dockerignore'
  "$linters/hadolint" --config "$LINNET_ROOT/.hadolint.yaml" "${files[@]}" || status=1
  info "${#files[@]} Dockerfiles"
  find_files '*compose*.yml' '*compose*.yaml'
  # The checker does not know Compose's own tags, which only choose how files are merged.
  local file plain
  plain=$(mktemp -d "${TMPDIR:-/tmp}/linnet-compose.XXXXXX")
  for file in "${files[@]}"; do
    sed -E 's/: !(override|reset)( |$)/: /' "$file" > "$plain/${file//\//_}"
  done
  "$linters/check-jsonschema" --builtin-schema vendor.compose-spec "$plain"/* || status=1
  rm -rf -- "$plain"
  info "${#files[@]} compose files"
  run_check images || status=1
  return "$status"
}

# From 0 (closed) to 10 (open). A unit without a sandbox has 9.6.
check_units() {
  "$LINNET_ROOT/scripts/install-packages" systemd-analyze
  local unit report status=0
  local -a files
  find_files 'deploy/systemd/*.service'
  for unit in "${files[@]}"; do
    # The report on the standard output names the rating and what raises it.
    if ! report=$(systemd-analyze --no-pager --offline=true --threshold=20 security "$unit" 2>&1); then
      printf '%s\n' "$report" >&2
      fail "$unit: rated worse than 2.0"
      status=1
    fi
  done
  info "${#files[@]} units"
  return "$status"
}
