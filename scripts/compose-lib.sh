# shellcheck shell=bash disable=SC2034 # other scripts use these variables
# Functions for the scripts that use containers, in addition to lib.sh. Source it; it runs nothing.
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

deploy=$LINNET_ROOT/deploy
secrets=${LINNET_SECRETS:-$deploy/secrets}
export LINNET_SECRETS=$secrets LINNET_LOG_SOCKET=$deploy/run/logs/fluent.sock
# With TLS=on nginx serves HTTPS for the domains of LINNET_NAMES.
case ${TLS:-} in
  '') ;;
  on)
    [[ -n ${LINNET_NAMES:-} ]] || die "TLS=on needs LINNET_NAMES, the domains separated by commas, such as LINNET_NAMES=go.example.com" "$EX_USAGE"
    HOST=${HOST:-0.0.0.0} LINNET_PORT=${LINNET_HTTP_PORT:-80}
    export LINNET_NAMES LINNET_HTTP_PORT=$LINNET_PORT LINNET_BASE_URL=${LINNET_BASE_URL:-https://${LINNET_NAMES%%,*}}
    ;;
  *) die "TLS must be \`on\` or empty: $TLS" "$EX_USAGE" ;;
esac
export LINNET_HOST=${LINNET_HOST:-${HOST:-127.0.0.1}} LINNET_PORT=${LINNET_PORT:-${PORT:-8080}}
public_address "$LINNET_HOST"
# Compose's `ports` take an IPv6 address in brackets.
export LINNET_HOST=$listen_host LINNET_BASE_URL=${LINNET_BASE_URL:-http://$shown_host:$LINNET_PORT}
# nginx's problems have the same types as the gateway's.
LINNET_PROBLEM_TYPES_URL=$(sed -n 's/^[[:blank:]]*LINNET__PUBLIC__PROBLEM_TYPES_URL=//p' "$deploy/linnet.env" 2>/dev/null | tail -n 1 || true)
export LINNET_PROBLEM_TYPES_URL
local_url=http://$local_host:$LINNET_PORT

# PROFILES=monitoring,tracing
IFS=', ' read -r -a profiles <<< "${PROFILES:-}"
files=(-f "$deploy/compose.yaml")
for profile in "${profiles[@]}"; do
  case $profile in
    monitoring) ;;
    tracing) export OTEL_EXPORTER_OTLP_ENDPOINT=${OTEL_EXPORTER_OTLP_ENDPOINT:-http://tempo:4318} ;;
    *) die "unknown profile '$profile'; choose from: monitoring, tracing" "$EX_USAGE" ;;
  esac
done
# Grafana's login is not public unless asked for.
case ${GRAFANA:-} in
  '') ;;
  public) export LINNET_NGINX_GRAFANA=grafana:3000 ;;
  *) die "GRAFANA must be \`public\` or empty: $GRAFANA" "$EX_USAGE" ;;
esac
if [[ -n ${TLS:-} ]]; then files+=(-f "$deploy/compose.tls.yaml"); fi

# With STORES=external PostgreSQL and Redis are servers elsewhere.
case ${STORES:-} in
  '') ;;
  external) files+=(-f "$deploy/compose.external.yaml") ;;
  *) die "STORES must be \`external\` or empty: $STORES" "$EX_USAGE" ;;
esac

# With BACKUP=yes a sidecar backs up PostgreSQL (docs/OPERATIONS.md, "Back up and restore").
case ${BACKUP:-} in
  '') ;;
  yes)
    [[ ${STORES:-} != external ]] || die "BACKUP=yes is for the container of PostgreSQL; with STORES=external backups are the provider's" "$EX_USAGE"
    files+=(-f "$deploy/compose.backup.yaml")
    ;;
  *) die "BACKUP must be \`yes\` or empty: $BACKUP" "$EX_USAGE" ;;
esac

# With LOGS=loki Docker sends the logs to Fluent Bit of the profile `monitoring`, also those of the services of other files.
case ${LOGS:-} in
  '') ;;
  loki)
    files+=(-f "$deploy/compose.logs.yaml")
    if [[ -n ${TLS:-} ]]; then files+=(-f "$deploy/compose.tls.logs.yaml"); fi
    if [[ ${BACKUP:-} == yes ]]; then files+=(-f "$deploy/compose.backup.logs.yaml"); fi
    ;;
  *) die "LOGS must be \`loki\` or empty: $LOGS" "$EX_USAGE" ;;
esac

# With LINNET_IMAGES_BY_TAG=yes, local images with the names and tags of compose.yaml run. Without a registry, Docker cannot
# find an image by its digest.
case ${LINNET_IMAGES_BY_TAG:-} in
  '') ;;
  yes)
    files+=(-f "$deploy/run/images-by-tag.yaml")
    LINNET_RUST_IMAGE=${LINNET_RUST_IMAGE:-$(sed -nE 's/^FROM ([^@ ]+)@[^ ]+ AS toolchain$/\1/p' "$deploy/Dockerfile")}
    LINNET_POSTGRES_IMAGE=${LINNET_POSTGRES_IMAGE:-$(sed -nE 's/^FROM ([^@ ]+)@[^ ]+ AS database$/\1/p' "$deploy/Dockerfile")}
    export LINNET_RUST_IMAGE LINNET_POSTGRES_IMAGE
    ;;
  *) die "LINNET_IMAGES_BY_TAG must be \`yes\` or empty: $LINNET_IMAGES_BY_TAG" "$EX_USAGE" ;;
esac

need_docker() {
  type -P docker >/dev/null || die "docker not found; install Docker Engine with Compose v2 (https://docs.docker.com/engine/install/)" "$EX_UNAVAILABLE"
  docker compose version >/dev/null 2>&1 || die "Docker Compose v2 not found; install docker-compose-plugin" "$EX_UNAVAILABLE"
  docker info >/dev/null 2>&1 || die "cannot connect to the Docker daemon; check that it runs and that you are in the group docker" "$EX_UNAVAILABLE"
}

compose() {
  local -a with=()
  local profile
  for profile in "${profiles[@]}"; do with+=(--profile "$profile"); done
  docker compose "${files[@]}" "${with[@]}" "$@"
}

# Writes the Compose file of LINNET_IMAGES_BY_TAG=yes: the image of each service, without its digest.
write_images_by_tag() {
  [[ -n ${LINNET_IMAGES_BY_TAG:-} ]] || return 0
  mkdir -p "$deploy/run"
  awk '
    /^[a-z]/ { inside = /^services:$/; if (inside) print }
    inside && /^  [a-z0-9-]+:$/ { service = $1 }
    inside && /^    image: [^$]*@/ { sub(/@.*/, "", $2); print "  " service " {image: \"" $2 "\"}" }
  ' "$deploy/compose.yaml" > "$deploy/run/images-by-tag.yaml.$$"
  mv -f "$deploy/run/images-by-tag.yaml.$$" "$deploy/run/images-by-tag.yaml"
}

# Prints all containers of the project, running or not.
project_containers() { docker ps -aq --filter "label=com.docker.compose.project=${LINNET_PROJECT:-linnet}"; }

# Builds the images with the names that compose.yaml expects. LINNET_BUILD_OPTIONS is a list of options for `docker
# build`.
build_images() {
  local target created revision
  export LINNET_RELEASE=${LINNET_RELEASE:-$(git -C "$LINNET_ROOT" describe --always --dirty 2>/dev/null || echo development)}
  revision=$(git -C "$LINNET_ROOT" rev-parse HEAD 2>/dev/null || echo unknown)
  # The commit's time, so that the same sources produce the same image.
  created=$(TZ=UTC git -C "$LINNET_ROOT" log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)
  local -a targets=(shortener gateway)
  if [[ -n ${TLS:-} ]]; then targets+=(acme); fi
  if [[ ${BACKUP:-} == yes ]]; then targets+=(backup); fi
  for target in "${targets[@]}"; do
    # shellcheck disable=SC2086 # a list of options, when CI gives one
    docker build ${LINNET_BUILD_OPTIONS:-} -q -f "$deploy/Dockerfile" --target "$target" -t "linnet/$target:development" \
      --build-arg "RUST_IMAGE=${LINNET_RUST_IMAGE:-toolchain}" \
      --build-arg "POSTGRES_IMAGE=${LINNET_POSTGRES_IMAGE:-database}" --build-arg "LINNET_RELEASE=$LINNET_RELEASE" \
      --build-arg "REVISION=$revision" --build-arg "CREATED=$created" "$LINNET_ROOT" >/dev/null
  done
}
