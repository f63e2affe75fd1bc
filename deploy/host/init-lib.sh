# shellcheck shell=bash disable=SC2034,SC2154 # a part of init.sh, which sets `mode`
# How init.sh changes a server: each function announces a change, and makes it unless it is only to be announced.
# change TEXT: announces a change; fails if it is only to be announced.
change() {
  changes=$((changes + 1))
  case $mode in
    apply)   printf '  %s\n' "$1" ;;
    dry-run) printf '  would: %s\n' "$1"; return 1 ;;
    check)   printf '%s\n' "not as prepared: $1"; return 1 ;;
  esac
}

# put FILE MODE: writes the standard input to the file. `written` is yes if that changed it.
put() {
  local file=$1 wanted_mode=$2 content
  content=$(cat; printf x); content=${content%x}
  written=''
  if [[ -f $file && $(cat "$file"; printf x) == "${content}x" && $(stat -c '%a %U' "$file") == "$wanted_mode root" ]]; then return 0; fi
  change "write $file" || return 0
  mkdir -p "$(dirname "$file")"
  printf '%s' "$content" > "$file.new"
  chmod "$wanted_mode" "$file.new"; chown root:root "$file.new"
  mv -f "$file.new" "$file"
  written=yes
}

# folder PATH MODE OWNER: the owner by names, or by numbers.
folder() {
  [[ -d $1 && ($(stat -c '%a %U:%G' "$1") == "$2 $3" || $(stat -c '%a %u:%g' "$1") == "$2 $3") ]] && return 0
  change "create $1 (mode $2, $3)" || return 0
  mkdir -p "$1"; chmod "$2" "$1"; chown "$3" "$1"
}

installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]; }

packages() {
  local package; local -a missing=()
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  (( ${#missing[@]} )) || return 0
  change "install ${missing[*]}" || return 0
  local -a apt=(apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -qq)
  DEBIAN_FRONTEND=noninteractive "${apt[@]}" update >&2 || die "Debian's packages cannot be fetched; check the server's network and /etc/apt" 69
  DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "${missing[@]}" > /var/log/linnet-init-apt.log 2>&1 \
    || die "installing ${missing[*]} failed; see /var/log/linnet-init-apt.log on the server" 69
}

# enabled UNIT: enables and starts it.
enabled() {
  systemctl is-enabled --quiet "$1" 2>/dev/null && systemctl is-active --quiet "$1" && return 0
  change "enable $1" || return 0
  systemctl enable --quiet --now "$1"
}

user() {
  id -u "$1" >/dev/null 2>&1 && return 0
  change "create the user $1" || return 0
  # `*` is no password, and unlike a locked account it can use keys with any configuration of PAM.
  useradd --create-home --shell /bin/bash --password '*' "$1"
}

# keys USER: writes the standard input as the user's authorized keys.
keys() {
  local home file
  file=/home/$1/.ssh/authorized_keys
  home=/home/$1/.ssh
  [[ -d $home ]] || { change "create $home" && install -d -m 700 -o "$1" -g "$1" "$home"; } || true
  local content; content=$(cat)
  [[ -f $file && $(<"$file") == "$content" && $(stat -c '%a %U' "$file") == "600 $1" ]] && return 0
  change "write $file" || return 0
  printf '%s\n' "$content" > "$file.new"
  chmod 600 "$file.new"; chown "$1:$1" "$file.new"; mv -f "$file.new" "$file"
}

# no_keys USER: removes them.
no_keys() {
  local file=/home/$1/.ssh/authorized_keys
  [[ -s $file ]] || return 0
  change "remove $file" || return 0
  rm -f "$file"
}
