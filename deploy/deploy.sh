#!/usr/bin/env bash
# Sets up a server for Linnet, and deploys releases on it, from any machine with ssh. docs/DEPLOY.md is the guide.
#
#   deploy.sh init root@HOST --domain NAME --email ADDRESS [--dry-run]    prepares a fresh Debian 13 server
#       --operator-keys FILE   public keys that may log in as `linnet` (default: those that root accepts now)
#       --deploy-key FILE      public key of the pipeline, restricted to linnet-host; '' removes it
#       --registry PREFIX  --tls off  --profiles monitoring  --dns-later
#       --acme-directory staging   Let's Encrypt's environment for trials, or the URL of another CA's directory
#       --backup REPOSITORY  --backup-disk FOLDER    backs up PostgreSQL (docs/OPERATIONS.md, "Back up and restore")
#   deploy.sh cloud-init --domain NAME --email ADDRESS --operator-keys FILE […]    prints a file that does the same
#   deploy.sh check HOST           what differs on the server from what was prepared and deployed
#   deploy.sh release HOST [--in-place] [--image-digest NAME=sha256:…]…
#       sends the local images linnet/gateway, linnet/shortener, linnet/bundle, for TLS linnet/acme, and for backups
#       linnet/backup (LINNET_…_IMAGE), or lets the server pull the digests of these names
#   deploy.sh status|follow HOST   what runs, and what ends an interrupted deployment
#   deploy.sh resume HOST          continues an interrupted deployment
#   deploy.sh rollback HOST        returns to the release before, within seconds while its color is warm
#   deploy.sh apply HOST           applies changed settings, and new images of nginx and the stores; interrupts them
#   deploy.sh backup HOST          takes a backup now
#   deploy.sh stop HOST            stops everything, after the backups have all changes, to move to another server
#   deploy.sh restore HOST [--to TIME] […]       restores the database (options: deploy/host/restore). On a new server,
#       after `secrets import`, this is also the first release, with the images as for `release`
#   deploy.sh secrets export HOST > FILE         a copy of the secrets, encrypted with a passphrase
#   deploy.sh secrets import HOST [--replace] < FILE   writes them to a new server, before its first release
#
# HOST is a name or an address, with USER@ before it and :PORT behind it if needed. The default user is `linnet`.
#
#   LINNET_KNOWN_HOSTS   host keys of servers (~/.config/linnet/known_hosts). Only `init` adds one.
#   LINNET_SSH_KEY       private key, instead of ssh's defaults
#
# - A deployment runs on the server. If this machine loses its connection, it continues; `status` shows it.
# - A fault is one sentence with the way out, and leaves the service as it was.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
EX_USAGE=64 EX_UNAVAILABLE=69
say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$1" >&2; exit "${2:-1}"; }
# macOS has 3.2.
if (( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404 )); then die "this is Bash $BASH_VERSION, and deploy.sh needs 4.4 or newer; install one, or run this on Linux" "$EX_UNAVAILABLE"; fi
usage() { sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//' >&2; exit "$EX_USAGE"; }

known_hosts=${LINNET_KNOWN_HOSTS:-${XDG_CONFIG_HOME:-$HOME/.config}/linnet/known_hosts}
work=$(mktemp -d "${TMPDIR:-/tmp}/linnet-deploy.XXXXXX")
finish() {
  # Ends the shared connection.
  if [[ -S $work/ssh ]]; then ssh -o ControlPath="$work/ssh" -O exit "$host" 2>/dev/null || true; fi
  rm -rf -- "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# shellcheck source=deploy/connection.sh
source "$here/connection.sh"

# --- init ---------------------------------------------------------------------------------------------------------------
# Prints init.sh with its library, as the server gets it.
init_program() { sed -e "/^# --- How changes are made/{r $here/host/init-lib.sh" -e 'd}' "$here/host/init.sh"; }

# Sets options from the arguments: domain, email, files; and passed, what init.sh gets.
read_options() {
  domain='' email='' operator_keys='' deploy_key='' dns_later='' dry_run=''
  passed=()
  while (( $# )); do
    case $1 in
      --dns-later) dns_later=yes; shift; continue ;;
      --dry-run) dry_run=yes; shift; continue ;;
    esac
    (( $# >= 2 )) || die "the option $1 needs a value" "$EX_USAGE"
    case $1 in
      --domain) domain=$2; passed+=(--domain "$2") ;;
      --email) email=$2; passed+=(--email "$2") ;;
      --operator-keys) operator_keys=$2 ;;
      # An empty value removes the key that the server has.
      --deploy-key) deploy_key=${2:-/dev/null} ;;
      --registry|--tls|--profiles|--backup|--backup-disk|--acme-directory) passed+=("$1" "$2") ;;
      *) die "unknown option $1; \`deploy.sh help\` lists them" "$EX_USAGE" ;;
    esac
    shift 2
  done
  [[ -n $domain && -n $email ]] || die "init needs --domain and --email" "$EX_USAGE"
  local option
  for option in "${passed[@]}"; do
    [[ $option =~ ^[A-Za-z0-9@.,:/_+?=\&-]*$ ]] || die "the value '$option' has characters that no option may have" "$EX_USAGE"
  done
  local file
  for file in "$operator_keys" "$deploy_key"; do
    [[ -z $file || -r $file ]] || die "cannot read the public key $file" "$EX_USAGE"
  done
}

init() {
  target "${1:-}"; shift
  read_options "$@"
  # A proxy in front has the domain's address.
  [[ -n $dns_later || " ${passed[*]} " == *' --tls off '* ]] || check_dns
  # A first connection notes the key; later ones must have it. The provider's console shows the same fingerprint.
  host_keys=accept-new
  mkdir -p "$(dirname "$known_hosts")"
  local known; known=$([[ $port == 22 ]] && echo "$host" || echo "[$host]:$port")
  local is_new=''; ssh-keygen -F "$known" -f "$known_hosts" >/dev/null 2>&1 || is_new=yes
  if ! remote true 2> "$work/ssh-error"; then
    # A prepared server accepts root no more.
    if grep -q 'Permission denied' "$work/ssh-error" && [[ $user == root ]]; then user=linnet; fi
  fi
  connect
  if [[ -n $is_new ]]; then
    say "noted the host key of $host: $(ssh-keygen -lF "$known" -f "$known_hosts" | tail -n 1)"
  fi
  host_keys=yes
  if remote 'type cloud-init' >/dev/null 2>&1; then as_root 'cloud-init status --wait' >/dev/null 2>&1 || true; fi

  local folder
  folder=$(as_root 'mktemp -d /run/linnet-init.XXXXXX') || die "cannot write to /run on $host"
  send() { as_root "sh -c 'cat > $folder/$1'" < "$2"; }
  init_program > "$work/init.sh"
  send init.sh "$work/init.sh"
  if [[ -n $operator_keys ]]; then
    send operator.pub "$operator_keys"
  else
    as_root "sh -c 'cat /home/linnet/.ssh/authorized_keys 2>/dev/null || cat /root/.ssh/authorized_keys'" > "$work/keys" || die "root on $host has no authorized keys; pass --operator-keys FILE" "$EX_USAGE"
    send operator.pub "$work/keys"
  fi
  local -a options=("${passed[@]}" --operator-keys "$folder/operator.pub" --undo-ssh 120)
  if [[ -n $deploy_key ]]; then send deploy.pub "$deploy_key"; options+=(--deploy-key "$folder/deploy.pub"); fi
  if [[ -n $dry_run ]]; then options+=(--dry-run); fi
  local status=0
  as_root "bash $folder/init.sh ${options[*]@Q}" || status=$?
  as_root "rm -rf $folder" || true
  (( status == 0 )) || exit "$status"
  [[ -z $dry_run ]] || return 0
  confirm_login
}

# A new session must work before the old one ends. Without this confirmation sshd's old configuration returns.
confirm_login() {
  as_root 'systemctl is-active --quiet linnet-ssh-undo.timer' || return 0
  if user=linnet fresh=yes remote 'sudo -n systemctl stop linnet-ssh-undo.timer' 2> "$work/ssh-error"; then
    say "logging in as linnet works; root and passwords are no longer accepted"
    return 0
  fi
  local file=/etc/ssh/sshd_config.d/10-linnet.conf
  as_root "sh -c 'if [ -e $file.old ]; then mv -f $file.old $file; else rm -f $file; fi; systemctl reload ssh && systemctl stop linnet-ssh-undo.timer'" || true
  local hint="check the key in --operator-keys"
  if grep -q 'Too many authentication failures' "$work/ssh-error"; then hint="your SSH agent offers more than three keys, so name the right one with LINNET_SSH_KEY"; fi
  die "a new session as linnet was refused ($(<"$work/ssh-error")), so sshd is as before; $hint and run init again"
}

cloud_init() {
  read_options "$@"
  [[ -n $operator_keys ]] || die "cloud-init needs --operator-keys" "$EX_USAGE"
  local -a options=("${passed[@]}" --operator-keys /run/linnet-operator.pub)
  encoded() { printf '  - path: %s\n    permissions: "%s"\n    encoding: b64\n    content: %s\n' "$1" "$2" "$(base64 < "$3" | tr -d '\n')"; }
  printf '#cloud-config\n# Prepares a Debian 13 server for Linnet: the same script as deploy.sh init.\nwrite_files:\n'
  init_program > "$work/init.sh"
  encoded /usr/local/sbin/linnet-init 0755 "$work/init.sh"
  encoded /run/linnet-operator.pub 0644 "$operator_keys"
  if [[ -n $deploy_key ]]; then
    encoded /run/linnet-deploy.pub 0644 "$deploy_key"
    options+=(--deploy-key /run/linnet-deploy.pub)
  fi
  printf 'runcmd:\n  - [bash, /usr/local/sbin/linnet-init'; printf ', "%s"' "${options[@]}"; printf ']\n'
}

# --- release ------------------------------------------------------------------------------------------------------------
is_digest() { [[ $1 =~ ^sha256:[0-9a-f]{64}$ ]]; }

# host_program ARGUMENTS: runs linnet-host on the server and explains a lost connection.
host_program() {
  local status=0
  as_root "/usr/local/sbin/linnet-host $1" || status=$?
  if (( status == 255 )); then
    die "the connection to $host was lost; a deployment continues on the server: \`deploy.sh status $host\`" "$EX_UNAVAILABLE"
  fi
  return "$status"
}

need_host_program() {
  as_root 'test -x /usr/local/sbin/linnet-host' || die "no release is on $host yet; run \`deploy.sh release $host\` first" "$EX_UNAVAILABLE"
}

# Copies the server's program out of a bundle, which the server has.
install_program() {
  as_root "sh -c 'set -e; c=\$(docker create $1 none); trap \"docker rm \$c >/dev/null\" EXIT; docker cp \$c:/bundle/linnet-host /usr/local/sbin/linnet-host.new >/dev/null; chmod 755 /usr/local/sbin/linnet-host.new; mv -f /usr/local/sbin/linnet-host.new /usr/local/sbin/linnet-host'" \
    || die "the bundle $1 has no program for the server; build it with \`docker build --target bundle\`"
}

# need_room IMAGE…: PostgreSQL has its files on the same disk of the server, so images must not fill it.
need_room() {
  local free needed
  needed=$(docker image inspect --format '{{.Size}}' "$@" | awk '{ bytes += $1 } END { printf "%d", bytes / 1048576 + 256 }')
  free=$(as_root 'df --output=avail --block-size=1M /var/lib/docker' | tail -n 1 | tr -dc 0-9) || return 0
  [[ -z $free ]] || (( free >= needed )) || die "$host has $free MiB of disk free, and the images need $needed; free some (\`ssh $user@$host df -h\`), or use a larger disk" "$EX_UNAVAILABLE"
}

# send_images: sends the local images of `names` that the server lacks, and sets `words` to their ids there. An id depends on how an engine
# stores images, so the server is asked for its own.
send_images() {
  local name image id tag packer=cat
  local -a missing=() tags=()
  words=() bundle=''
  if type -P zstd >/dev/null; then packer='zstd -q -T0 -3'; elif type -P gzip >/dev/null; then packer='gzip -1'; fi
  for name in "${names[@]}"; do
    local variable=LINNET_${name^^}_IMAGE
    image=${!variable:-linnet/$name:development}
    id=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null) || die "there is no local image $image; build it, or name another with $variable" "$EX_UNAVAILABLE"
    tag=linnet-transfer/$name:${id:7:32}
    docker tag "$image" "$tag"
    tags+=("$tag")
    as_root "docker image inspect --format ok $tag" >/dev/null 2>&1 || missing+=("$tag")
  done
  if (( ${#missing[@]} )); then
    need_room "${missing[@]}"
    say "sending ${#missing[@]} images"
    # shellcheck disable=SC2086 # a program with its options
    docker save "${missing[@]}" | $packer | as_root 'docker load --quiet' > "$work/load" 2>&1 \
      || die "the server did not accept the images ($(tail -n 1 "$work/load")); check its disk with \`ssh $user@$host df -h\`"
  fi
  for tag in "${tags[@]}"; do
    name=${tag#linnet-transfer/} name=${name%%:*}
    id=$(as_root "docker image inspect --format '{{.Id}}' $tag")
    words+=("$name=$id")
    if [[ $name == bundle ]]; then bundle=$id; fi
  done
  # The local tags served the transfer.
  docker rmi "${tags[@]}" >/dev/null 2>&1 || true
}

release() {
  target "${1:-}"; shift
  local name value
  local -a manner=()
  local -A digests=()
  while (( $# )); do
    case $1 in
      --in-place|--restore|--without-newest) manner+=("$1"); shift ;;
      --to=*|--timeline=*)
        [[ $1 =~ ^--[a-z]+=[A-Za-z0-9:.+-]+$ ]] || die "the option '$1' has no value, or characters that no value has" "$EX_USAGE"
        manner+=("$1"); shift ;;
      --image-digest)
        name=${2:-}; value=${name#*=} name=${name%%=*}
        if ! [[ $name =~ ^(gateway|shortener|bundle|acme|backup)$ ]] || ! is_digest "$value"; then
          die "--image-digest must be gateway=, shortener=, bundle=, acme= or backup=, and sha256: with 64 hexadecimal digits: ${2:-}" "$EX_USAGE"
        fi
        digests[$name]=$value; shift 2 ;;
      *) die "unknown option $1; \`deploy.sh help\` lists them" "$EX_USAGE" ;;
    esac
  done
  local words=() bundle=''
  for name in "${!digests[@]}"; do words+=("$name=${digests[$name]}"); done
  [[ ${#words[@]} == 0 || (-n ${digests[gateway]:-} && -n ${digests[shortener]:-} && -n ${digests[bundle]:-}) ]] || die "--image-digest is needed for gateway, shortener and bundle" "$EX_USAGE"
  connect
  as_root 'test -e /etc/linnet/host.json' || die "$host is not prepared; run \`deploy.sh init root@$host\` first" "$EX_UNAVAILABLE"
  if (( ${#digests[@]} )); then
    if ! as_root 'test -x /usr/local/sbin/linnet-host'; then
      local registry
      registry=$(remote "sed -nE 's/.*\"registry\": \"([^\"]+)\".*/\\1/p' /etc/linnet/host.json")
      as_root "docker pull -q $registry/bundle@${digests[bundle]}" >/dev/null || die "$host cannot pull $registry/bundle@${digests[bundle]}; check the digest and the registry" "$EX_UNAVAILABLE"
      install_program "$registry/bundle@${digests[bundle]}"
    fi
    host_program "deploy ${manner[*]} ${words[*]}"
  else
    type -P docker >/dev/null || die "docker not found on this machine; pass --image-digest, or install Docker" "$EX_UNAVAILABLE"
    local -a names=(gateway shortener bundle)
    if remote "grep -q '\"tls\": true' /etc/linnet/host.json"; then names+=(acme); fi
    if remote "grep -q '\"backup\": \"' /etc/linnet/host.json"; then names+=(backup); fi
    send_images
    as_root 'test -x /usr/local/sbin/linnet-host' || install_program "$bundle"
    host_program "deploy --loaded ${manner[*]} ${words[*]}"
  fi
}

restore() {
  local server=${1:-} option pattern='^--[a-z-]+( [A-Za-z0-9:.+-]+)?$'
  local -a options=() manner=() images=()
  target "$server"; shift
  while (( $# )); do
    option=$1
    case $1 in
      --image-digest) images+=("$1" "${2:-}"); shift; [[ $# == 0 ]] || shift; continue ;;
      --to|--timeline) option+=" ${2:-;}" manner+=("$1=${2:-}"); shift; [[ $# == 0 ]] || shift ;;
      --without-newest|--delete-first) shift; if [[ $option != --delete-first ]]; then manner+=("$option"); fi ;;
      *) die "unknown option $1; \`deploy/host/restore --help\` lists them" "$EX_USAGE" ;;
    esac
    [[ $option =~ $pattern ]] || die "the option '$option' has no value, or characters that no value has" "$EX_USAGE"
    options+=("$option")
  done
  connect
  if as_root 'test -L /opt/linnet/current'; then
    [[ ${#images[@]} == 0 ]] || die "--image-digest is for a new server; $host has a release, whose images restore" "$EX_USAGE"
    host_program "restore ${options[*]}"
  else
    release "$server" --restore "${manner[@]}" "${images[@]}"
  fi
}

# Sets `passphrase`, from LINNET_PASSPHRASE_FILE or the terminal.
read_passphrase() {
  local again
  if [[ -n ${LINNET_PASSPHRASE_FILE:-} ]]; then passphrase=$(<"$LINNET_PASSPHRASE_FILE"); return; fi
  [[ -r /dev/tty ]] || die "there is no terminal for the passphrase; name a file with LINNET_PASSPHRASE_FILE" "$EX_USAGE"
  read -rsp 'passphrase: ' passphrase < /dev/tty; say ''
  [[ $1 == export ]] || return 0
  read -rsp 'again: ' again < /dev/tty; say ''
  [[ $passphrase == "$again" ]] || die "the two passphrases differ" "$EX_USAGE"
}

# The script of this repository runs on the server, which may have no release yet. Neither the passphrase nor a secret is on
# a command line.
secrets() {
  local verb=${1:-} folder status=0 passphrase=''
  [[ $verb == export || $verb == import ]] || usage
  target "${2:-}"
  shift 2
  local option
  for option in "$@"; do
    [[ $verb == import && $option == --replace ]] || die "unknown option $option; \`secrets import HOST\` has --replace, which overwrites secrets of the server" "$EX_USAGE"
  done
  read_passphrase "$verb"
  # ssh would read the file of `import`.
  exec 3<&0 </dev/null
  connect
  as_root 'test -d /etc/linnet' || die "$host is not prepared; run \`deploy.sh init root@$host\` first" "$EX_UNAVAILABLE"
  folder=$(as_root 'mktemp -d /run/linnet-secrets.XXXXXX') || die "cannot write to /run on $host"
  as_root "sh -c 'cat > $folder/secrets'" < "$here/host/secrets"
  printf '%s' "$passphrase" | as_root "sh -c 'umask 077; cat > $folder/passphrase'"
  as_root "bash $folder/secrets $verb --folder /etc/linnet/secrets --passphrase-file $folder/passphrase $*" <&3 || status=$?
  as_root "rm -rf $folder" || true
  return "$status"
}

case ${1:-help} in
  restore) shift; restore "$@" ;;
  secrets) shift; secrets "$@" ;;
  init) shift; init "$@" ;;
  cloud-init) shift; host='' ; cloud_init "$@" ;;
  release) shift; release "$@" ;;
  check|status|follow|resume|rollback|apply|backup|stop)
    verb=$1; (( $# == 2 )) || usage
    target "$2"; connect; need_host_program; host_program "$verb" ;;
  *) usage ;;
esac
