#!/usr/bin/env bash
# Prepares a fresh Debian 13 server for Linnet, or compares a prepared one. `deploy/deploy.sh init` sends it over SSH as one
# file with init-lib.sh, and the cloud-init file of `deploy/deploy.sh cloud-init` contains that. On the server it is
# /usr/local/sbin/linnet-init.
#
#   init.sh --domain NAME --email ADDRESS --operator-keys FILE [OPTIONS]    prepares the server
#   init.sh --check                                                         prints what differs, changes nothing
#   init.sh --dry-run …                                                     prints what it would do
#
#   --deploy-key FILE     public key of the deployment pipeline, which may only call linnet-host; an empty file removes it
#   --registry PREFIX     prefix of the images (ghcr.io/linnet-url/linnet)
#   --tls off             a proxy in front terminates TLS; its address is LINNET_TRUSTED_PROXIES in /etc/linnet/linnet.env
#   --profiles A,B        profiles of Compose, such as monitoring
#   --backup REPOSITORY   backs up PostgreSQL there (LINNET_BACKUP_REPOSITORY in deploy/compose.backup.yaml)
#   --acme-directory CA   production (default) or staging of Let's Encrypt, or the URL of another CA's directory
#   --backup-disk FOLDER  folder of a second disk, for the repository file:///repository
#   --keep-ssh            does not change sshd (--change-ssh: does, on a server that was prepared with --keep-ssh)
#   --undo-ssh SECONDS    sshd's old configuration returns after this time, unless linnet-ssh-undo.timer is stopped before
#
# - On a prepared server, options that are not given keep their values.
# - Each action is printed before it is done. A second run with the same options changes nothing and prints "nothing changed".
# - Nothing is changed before all checks of the server have passed.
# - A server with another distribution, too little memory or taken ports is left as it is.
set -euo pipefail

die() { printf 'error: %s\n' "$1" >&2; exit "${2:-1}"; }

mode=apply undo_ssh='' operator_keys='' given=' '
domain='' email='' deploy_key='' registry=ghcr.io/linnet-url/linnet tls=on profiles='' backup='' backup_disk='' acme_directory='' keep_ssh=''
saved=/etc/linnet/init.env
while (( $# )); do
  case $1 in
    --check|--dry-run) mode=${1#--}; shift; continue ;;
    --keep-ssh) keep_ssh=yes given+='keep_ssh '; shift; continue ;;
    --change-ssh) keep_ssh='' given+='keep_ssh '; shift; continue ;;
  esac
  (( $# >= 2 )) || die "the option $1 needs a value" 64
  name=${1#--} name=${name//-/_}
  case $1 in
    --operator-keys|--deploy-key) [[ -r $2 ]] || die "cannot read the key $2" 64; printf -v "$name" %s "$(<"$2")" ;;
    --domain|--email|--registry|--tls|--profiles|--backup|--backup-disk|--acme-directory|--undo-ssh) printf -v "$name" %s "$2" ;;
    *) die "unknown option $1" 64 ;;
  esac
  given+="$name "
  shift 2
done
[[ $(id -u) -eq 0 ]] || die "this needs root; the user needs sudo without a password for this step"
if [[ $mode == check ]]; then
  [[ -r $saved ]] || die "this server is not prepared; run \`deploy.sh init\` first" 69
  # shellcheck source=/dev/null
  source "$saved"
elif [[ -r $saved ]]; then
  # Each is a plain word or a list of keys, quoted by this script. A disk belongs to its repository.
  if [[ $given == *' backup '* ]]; then given+='backup_disk '; fi
  for name in domain email registry tls profiles backup backup_disk acme_directory keep_ssh deploy_key; do
    if [[ $given == *" $name "* ]]; then continue; fi
    value=$(bash -c 'source "$0"; printf "%s\n" "${!1:-}"' "$saved" "$name")
    printf -v "$name" %s "${value:-${!name}}"
  done
fi

# --- Checks: nothing has been changed yet ------------------------------------------------------------------------------
name='[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?'
top='([a-z]{2,63}|xn--[a-z0-9-]{1,59})'
[[ $domain =~ ^($name\.)+$top$ ]] || die "the domain '$domain' is not a name such as go.example.com; check its spelling" 64
[[ $email =~ ^[^@[:space:]\"\\]+@($name\.)+$top$ ]] || die "the e-mail address '$email' is not valid" 64
[[ $registry =~ ^[a-z0-9./:_-]+$ ]] || die "the registry '$registry' is not a prefix such as ghcr.io/you/linnet" 64
[[ $tls == on || $tls == off ]] || die "--tls must be on or off: $tls" 64
[[ $profiles =~ ^([a-z]+(,[a-z]+)*)?$ ]] || die "--profiles must be words, separated by commas: $profiles" 64
[[ $backup =~ ^((s3|sftp|file)://[A-Za-z0-9@.:/_?=\&-]+)?$ ]] || die "--backup must be s3://BUCKET/PATH?endpoint=HOST&region=REGION, sftp://USER@HOST/PATH or file:///repository: $backup" 64
[[ $backup_disk =~ ^(/[A-Za-z0-9._/-]+)?$ ]] || die "--backup-disk must be the path of a folder: $backup_disk" 64
[[ -z $backup_disk || $backup == file:///repository ]] || die "--backup-disk needs --backup file:///repository" 64
[[ $backup != file:* || -n $backup_disk ]] || die "--backup $backup needs --backup-disk, because a repository on the same disk is lost with it" 64
[[ $acme_directory =~ ^(|production|staging|https://[A-Za-z0-9.:/_-]+)$ ]] || die "--acme-directory must be production, staging or the URL of a directory: $acme_directory" 64
key_pattern='^(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh.com) [A-Za-z0-9+/=]+( .*)?$'
operator_keys=$(grep -E "$key_pattern" <<< "$operator_keys" || true)
[[ -n $operator_keys ]] || die "there is no public key for the operator; without one no user could log in afterwards" 64
[[ -z $deploy_key || ($(wc -l <<< "$deploy_key") -eq 1 && $deploy_key =~ $key_pattern) ]] || die "the key of the pipeline must be one public key" 64

os_id='' os_version=''
if [[ -r /etc/os-release ]]; then read -r os_id os_version < <(. /etc/os-release; printf '%s %s\n' "${ID:-}" "${VERSION_ID:-}"); fi
[[ $os_id == debian && $os_version == 13 ]] || die "this server runs ${os_id:-an unknown system} $os_version; reinstall it with Debian 13" 69
machine=$(uname -m)
case $machine in x86_64|aarch64) ;; *) die "this server's processor is $machine; Linnet's images are for x86_64 and aarch64" 69 ;; esac
memory_mib=$(( $(awk '/^MemTotal:/ {print $2}' /proc/meminfo) / 1024 ))
(( memory_mib >= 1700 )) || die "this server has $memory_mib MiB of memory; Linnet needs 2 GB" 69
disk_mib=$(df --output=avail --block-size=1M / | tail -n 1)
if [[ ! -e $saved ]] && (( disk_mib < 6000 )); then die "this server has $disk_mib MiB of free disk; Linnet needs 6 GB" 69; fi
[[ -z $backup_disk || (-d $backup_disk && $(stat -c %d "$backup_disk") != $(stat -c %d /)) ]] || die "$backup_disk is not on a disk of its own; mount the second disk there first" 69
# Docker reserves its ports by a listener of its own.
if [[ $mode != check ]]; then
  ports=(80 443) other_port=''
  # A proxy on the same server needs both, and the operator has chosen another port for nginx.
  if [[ $tls == off ]]; then
    ports=("$(sed -nE 's/^LINNET_PORT=([0-9]+)$/\1/p' /etc/linnet/linnet.env 2>/dev/null | tail -n 1)")
    ports=("${ports[0]:-80}") other_port=', or for a proxy on this server choose another port by a line LINNET_PORT=8080 in /etc/linnet/linnet.env'
  fi
  for port in "${ports[@]}"; do
    listener=$(ss -Hltnp "sport = :$port" 2>/dev/null | sed -nE 's/.*users:\(\("([^"]+)".*/\1/p' | head -n 1)
    case $listener in ''|dockerd|docker-proxy) ;; *) die "port $port is in use by $listener; stop it with: systemctl disable --now $listener$other_port" 69 ;; esac
  done
fi

changes=0
# Settings that the operator has added, such as timings, are kept. `pairs` prints one setting a line.
pairs() { tr -d '\n' | sed -E 's/[{}]/\n/g; s/, *("[a-z_]+" *:)/\n\1/g' | sed -E 's/^ +//; s/[ ,]+$//; s/^("[a-z_]+") *: */\1: /; s/\[ +/[/; s/ +\]/]/; /^$/d'; }
present=''; if [[ -r /etc/linnet/host.json ]]; then present=$(pairs < /etc/linnet/host.json); fi
wrong=$(grep -vE '^("[a-z_]+": ("[^"]*"|-?[0-9.]+|true|false|null|\[[^][]*\]))?$' <<< "$present" | head -n 1 || true)
[[ -z $wrong ]] || die "/etc/linnet/host.json is not valid at '$wrong'; correct this line, or remove the setting" 69

# --- How changes are made: deploy.sh replaces this line by init-lib.sh ---
declare -F put >/dev/null || die "this is one of two parts; run \`deploy.sh init\`"

[[ $mode == check ]] || printf 'preparing this server for %s\n' "$domain"

# --- Folders and settings ---------------------------------------------------------------------------------------------
folder /etc/linnet 755 root:root
folder /etc/linnet/secrets 700 root:root
folder /opt/linnet 755 root:root
folder /opt/linnet/releases 755 root:root
folder /var/lib/linnet 755 root:root
folder /var/lib/linnet/releases 755 root:root
folder /var/lib/linnet/state 755 root:root
folder /var/lib/linnet/metrics 755 root:root
# Fluent Bit's user, which creates its socket there.
folder /var/lib/linnet/logs 700 65532:65532
if [[ ! -e /etc/linnet/linnet.env ]]; then
  put /etc/linnet/linnet.env 644 <<< '# Settings of Linnet, one LINNET__SECTION__KEY=value a line, and variables of Compose, such as LINNET_HSTS. "deploy.sh apply" applies them.'
fi
[[ -z $backup_disk || $(stat -c '%u %a' "$backup_disk") == '999 700' ]] || { change "give $backup_disk to the backup sidecar's user, 999" && chown 999:999 "$backup_disk" && chmod 700 "$backup_disk"; } || true
profile_list=''
if [[ -n $profiles ]]; then profile_list=\"${profiles//,/\", \"}\"; fi
# Without the option, a CA that the operator has written there stays.
managed='domain|email|registry|tls|backup|backup_disk|profiles'
if [[ $given == *' acme_directory '* || -n $acme_directory ]]; then managed+='|acme_directory'; fi
json_or_null() { if [[ -n $1 ]]; then printf '"%s"' "$1"; else printf null; fi; }
wanted=$(
  printf '"domain": "%s"\n"email": "%s"\n"registry": "%s"\n"tls": %s\n' "$domain" "$email" "$registry" "$([[ $tls == on ]] && echo true || echo false)"
  printf '"backup": %s\n"backup_disk": %s\n"profiles": [%s]\n' "$(json_or_null "$backup")" "$(json_or_null "$backup_disk")" "$profile_list"
  if [[ -n $acme_directory ]]; then printf '"acme_directory": "%s"\n' "$acme_directory"; fi
  grep -vE "^\"($managed)\":" <<< "$present" | grep . || true
)
if [[ $(sort <<< "$present") != "$(sort <<< "$wanted")" ]]; then
  put /etc/linnet/host.json 644 < <(printf '{\n'; sed 's/^/  /; $!s/$/,/' <<< "$wanted"; printf '}\n')
fi
# The copy for later comparisons.
if [[ $mode != check ]]; then put /usr/local/sbin/linnet-init 755 < "${BASH_SOURCE[0]}"; fi
put "$saved" 600 <<ENV
domain=$domain
email=$(printf '%q' "$email")
registry=$registry
tls=$tls
profiles=$profiles
operator_keys=$(printf '%q' "$operator_keys")
deploy_key=$(printf '%q' "$deploy_key")
backup=$(printf '%q' "$backup")
backup_disk=$(printf '%q' "$backup_disk")
acme_directory=$(printf '%q' "$acme_directory")
keep_ssh=$keep_ssh
ENV

# --- Kernel, journal, updates -----------------------------------------------------------------------------------------
# A container that stands for a server shares the kernel of its host, whose settings must stay.
in_container=''
if systemd-detect-virt --quiet --container; then in_container=yes; fi
if [[ -z $in_container ]]; then
  put /etc/sysctl.d/60-linnet.conf 644 <<'CONF'
# Redis forks to rewrite its file, which must not fail for memory that it will not use.
vm.overcommit_memory = 1
# Swap is compressed memory: use it early, page by page.
vm.swappiness = 100
vm.page-cluster = 0
# A kernel that has crashed restarts.
kernel.panic = 10
CONF
  if [[ -n $written ]]; then sysctl -q -p /etc/sysctl.d/60-linnet.conf; fi
fi
put /etc/systemd/journald.conf.d/60-linnet.conf 644 <<'CONF'
[Journal]
SystemMaxUse=200M
MaxRetentionSec=90day
CONF
if [[ -n $written ]]; then systemctl try-restart systemd-journald; fi
put /etc/apt/apt.conf.d/60-linnet 644 <<'CONF'
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
Unattended-Upgrade::Automatic-Reboot "true";
Unattended-Upgrade::Automatic-Reboot-Time "04:30";
// With live-restore, containers survive a new Docker, but only within a minor version.
Unattended-Upgrade::Package-Blacklist { "docker.io"; "containerd"; "runc"; };
CONF
packages unattended-upgrades systemd-timesyncd iptables openssl
# One second of clock error matters to expiries and certificates.
if [[ -z $in_container ]]; then enabled systemd-timesyncd; fi

# Compressed swap where the kernel has it, otherwise a file.
if [[ -z $in_container ]] && [[ -z $(swapon --noheadings --show=NAME 2>/dev/null) || -e /etc/systemd/zram-generator.conf ]]; then
  if modprobe --quiet zram 2>/dev/null; then
    put /etc/systemd/zram-generator.conf 644 <<'CONF'
[zram0]
zram-size = ram / 2
compression-algorithm = zstd
CONF
    packages systemd-zram-generator
    if [[ -n $written ]]; then systemctl daemon-reload; systemctl start systemd-zram-setup@zram0.service; fi
  elif [[ ! -e /var/lib/linnet/swap && ! -e /var/lib/linnet/no-swap ]]; then
    if change "create a swap file of 1 GB"; then
      fallocate -l 1G /var/lib/linnet/swap && chmod 600 /var/lib/linnet/swap && mkswap -q /var/lib/linnet/swap
      if swapon /var/lib/linnet/swap 2>/dev/null; then
        grep -q '^/var/lib/linnet/swap ' /etc/fstab || printf '/var/lib/linnet/swap none swap sw 0 0\n' >> /etc/fstab
      else
        rm -f /var/lib/linnet/swap; touch /var/lib/linnet/no-swap
        printf '  note: this server cannot use swap\n'
      fi
    fi
  fi
fi

# --- Docker -----------------------------------------------------------------------------------------------------------
# Before the packages, so that Docker starts with it.
put /etc/docker/daemon.json 644 <<'JSON'
{
  "live-restore": true,
  "userland-proxy": false,
  "log-driver": "local",
  "log-opts": {"max-size": "10m", "max-file": "3"},
  "no-new-privileges": true,
  "default-address-pools": [{"base": "10.201.0.0/16", "size": 24}],
  "max-concurrent-downloads": 2
}
JSON
daemon_written=$written
if installed docker.io && [[ -n $daemon_written ]]; then systemctl restart docker; fi
packages docker.io docker-cli docker-compose; enabled docker

# Docker's published ports bypass other firewalls. Docker evaluates this chain first for each packet that the server forwards.
put /usr/local/sbin/linnet-firewall 755 <<'SCRIPT'
#!/bin/sh
# Refuses connections to containers from outside, whatever the interface, except to ports 80 and 443 of this server: many
# servers have a second interface, to a network of the provider. Containers reach port 80 like visitors, although Docker
# separates networks: the ACME client tries the domain before it orders.
set -eu
rules() {
  # The interfaces of Docker's networks are docker0 and br-ID. Docker appends the last rule if it is missing, and that would
  # be a difference for linnet-check.
  cat <<RULES
*filter
:DOCKER-USER - [0:0]
-A DOCKER-USER -i br-+ -m conntrack --ctstate DNAT --ctorigdstport 80 -j ACCEPT
-A DOCKER-USER -i br-+ -j RETURN
-A DOCKER-USER -i docker+ -j RETURN
-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A DOCKER-USER -p tcp -m conntrack --ctstate NEW --ctorigdstport 80 -j RETURN
-A DOCKER-USER -p tcp -m conntrack --ctstate NEW --ctorigdstport 443 -j RETURN
-A DOCKER-USER -j DROP
-A DOCKER-USER -j RETURN
COMMIT
RULES
}
# One commit replaces the whole chain.
rules | iptables-restore --noflush
if ip6tables -n -L DOCKER-USER >/dev/null 2>&1; then rules | ip6tables-restore --noflush; fi
# As iptables prints them, for linnet-check.
iptables -S DOCKER-USER > /run/linnet-firewall.rules
SCRIPT
firewall_written=$written
put /etc/systemd/system/linnet-firewall.service 644 <<'UNIT'
[Unit]
Description=Linnet: connections from outside reach only ports 80 and 443 of containers
After=docker.service
PartOf=docker.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/linnet-firewall
[Install]
WantedBy=docker.service
UNIT
if [[ -n $written$firewall_written ]]; then systemctl daemon-reload; systemctl try-restart linnet-firewall; fi
enabled linnet-firewall
if [[ $mode != dry-run ]] && ! iptables -S DOCKER-USER 2>/dev/null | cmp -s - /run/linnet-firewall.rules; then
  if change "restart linnet-firewall, whose rules have changed"; then systemctl restart linnet-firewall; fi
fi

# --- Daily comparison ---------------------------------------------------------------------------------------------------
put /etc/systemd/system/linnet-check.service 644 <<'UNIT'
[Unit]
Description=Linnet: compares the server with what was deployed
ConditionPathExists=/usr/local/sbin/linnet-host
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/linnet-host check
# A difference is reported by the metric, not by a failed unit.
SuccessExitStatus=69
UNIT
put /etc/systemd/system/linnet-check.timer 644 <<'UNIT'
[Unit]
Description=Linnet: compares the server with what was deployed
[Timer]
OnCalendar=hourly
RandomizedDelaySec=10min
Persistent=true
[Install]
WantedBy=timers.target
UNIT
enabled linnet-check.timer

# --- Users ------------------------------------------------------------------------------------------------------------
packages sudo; user linnet; user deploy
keys linnet <<< "$operator_keys"
if [[ -n $deploy_key ]]; then keys deploy <<< "restrict,command=\"sudo -n /usr/local/sbin/linnet-host\" $deploy_key"
else no_keys deploy; fi
sudoers='# The operator may do everything. The pipeline may call one program without arguments, which reads the command of SSH.
linnet ALL=(ALL:ALL) NOPASSWD: ALL
Defaults:deploy env_keep += "SSH_ORIGINAL_COMMAND"
deploy ALL=(root) NOPASSWD: /usr/local/sbin/linnet-host ""'
# A wrong file would disable sudo.
visudo -cqf - <<< "$sudoers" || die "sudo does not accept its configuration; nothing was changed in it"
put /etc/sudoers.d/linnet 440 <<< "$sudoers"

# --- SSH, last: everything else works before logins change ----------------------------------------------------------------
sshd=/etc/ssh/sshd_config.d/10-linnet.conf
# Restores the file of an earlier run, or none. sshd reads only names that end with .conf.
undo="if [ -e $sshd.old ]; then mv -f $sshd.old $sshd; else rm -f $sshd; fi"
if [[ -z $keep_ssh ]]; then
  if [[ $mode == apply ]]; then rm -f "$sshd.old"; if [[ -e $sshd ]]; then cp -p "$sshd" "$sshd.old"; fi; fi
  put "$sshd" 644 <<'CONF'
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
AllowUsers linnet deploy
MaxAuthTries 3
LoginGraceTime 20
X11Forwarding no
# `linnet` forwards a port to reach Grafana.
AllowTcpForwarding no
Match User linnet
  AllowTcpForwarding local
CONF
  if [[ -n $written ]]; then
    if ! problem=$(sshd -t 2>&1); then
      sh -c "$undo"
      die "sshd does not accept its configuration, which is as before: $problem"
    fi
    if [[ -n $undo_ssh ]]; then
      systemctl stop linnet-ssh-undo.timer 2>/dev/null || true
      systemd-run --quiet --collect --unit=linnet-ssh-undo --on-active="$undo_ssh" \
        sh -c "$undo; systemctl reload ssh"
    fi
    systemctl reload ssh
  elif [[ $mode == apply ]]; then rm -f "$sshd.old"; fi
fi

if [[ $mode == check ]]; then exit $(( changes > 0 )); fi
if (( changes == 0 )); then echo "nothing changed"; else echo "$changes changes ($mode)"; fi
