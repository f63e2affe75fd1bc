# shellcheck shell=bash disable=SC2154 # `tools` is set by scripts/lint
# The checks of scripts/lint for what no compiler sees: YAML, GitHub's workflows, Dockerfiles and compose files.
#
# A check whose linter can't be had fails: a lint that is left out in silence says more than it knows.

# The linters in a virtual environment of their own, exactly those of requirements.txt. Sets `linters`, their folder.
install_linters() {
  local wanted=$LINNET_ROOT/scripts/lint.d/requirements.txt sum
  sum=$(sha256sum < "$wanted")
  linters=$tools/linters-${sum:0:12}/bin
  if [[ -e $linters/complete ]]; then return 0; fi
  "$LINNET_ROOT/scripts/install-packages" python3 python-venv
  info "installing the linters in ${linters%/bin} (once)"
  rm -rf -- "${linters%/bin}"
  mkdir -p "$tools"
  # Ready-made packages only: building one runs its code, and may download what no hash covers.
  if ! { python3 -m venv "${linters%/bin}" && "$linters/pip" install --quiet --disable-pip-version-check --require-hashes \
    --only-binary :all: --requirement "$wanted"; }; then
    rm -rf -- "${linters%/bin}"
    die "the linters of scripts/lint.d/requirements.txt could not be installed" "$EX_UNAVAILABLE"
  fi
  touch "$linters/complete"
}

# Sets `files` to those of the repository that match the patterns, new ones included; fails when there are none, since a check
# of nothing finds nothing.
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
  install_linters
  local -a files
  find_files '*.yml' '*.yaml'
  "$linters/yamllint" --strict --format parsable -- "${files[@]}"
  info "${#files[@]} files"
}

# GitHub's own files: is it what GitHub understands (schema, actionlint), and is it safe (zizmor)?
check_ci() {
  install_linters
  "$LINNET_ROOT/scripts/install-packages" shellcheck
  local status=0
  local -a files online=(--offline)
  # With a token, zizmor also asks GitHub whether a commit belongs to its action, and to the version that the comment names.
  if [[ -n ${GH_TOKEN:-} ]]; then online=(); fi
  find_files '.github/workflows/*.yml' '.github/workflows/*.yaml'
  "$linters/check-jsonschema" --builtin-schema vendor.github-workflows "${files[@]}" || status=1
  # What actionlint checks, the scripts inside with shellcheck; for what is dangerous there is zizmor.
  "$linters/jactionlint" --profile correctness --strict-exit "${files[@]}" || status=1
  find_files .github/dependabot.yml
  "$linters/check-jsonschema" --builtin-schema vendor.dependabot "${files[@]}" || status=1
  "$linters/zizmor" --quiet --no-progress --persona auditor "${online[@]}" .github || status=1
  return "$status"
}

check_containers() {
  install_linters
  local status=0
  local -a files
  find_files '*Dockerfile' '*Dockerfile.*' '*.Dockerfile' ':!*.dockerignore'
  "$linters/hadolint" --config "$LINNET_ROOT/.hadolint.yaml" "${files[@]}" || status=1
  info "${#files[@]} Dockerfiles"
  find_files '*compose*.yml' '*compose*.yaml'
  "$linters/check-jsonschema" --builtin-schema vendor.compose-spec "${files[@]}" || status=1
  info "${#files[@]} compose files"
  return "$status"
}
