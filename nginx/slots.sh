#!/bin/sh
# Decides which color serves how many of the requests. nginx has ten slots for short links and ten for everything else. A
# slot is a symbolic link to the socket of blue or green, and nginx opens each connection through the link.
#
#   slots.sh                 prints one line for each group: `resolve blue=9 green=1`
#   slots.sh COLOR COUNT     points COUNT of the ten slots of both groups to COLOR and the others to the other color
#
# In the container: docker exec NGINX sh /etc/nginx/slots.sh green 1
#
# - nginx is not reloaded. A connection that it keeps leads to the old color for at most 2 s (linnet.conf.template).
# - Each slot changes by one rename, so nginx finds every slot at any moment. A second run with the same arguments changes
#   nothing, and a run after one that was killed ends its work.
# - The slots of a color are spread evenly, because nginx tries the next slots when a connect fails.
# - A color whose sockets are absent gets no slot.
# - Slots that do not exist are created, pointing to blue. So the image's entrypoint runs this script too.
#
# POSIX sh. Exit code 64 for wrong arguments, 69 if a color does not run, 73 if a slot cannot be written.
# LINNET_NGINX_SLOTS is the directory of the slots (/run/linnet/slots), LINNET_NGINX_SOCKETS that of the sockets (/run/linnet).
set -eu

slots=${LINNET_NGINX_SLOTS:-/run/linnet/slots}
sockets=${LINNET_NGINX_SOCKETS:-/run/linnet}
indices='0 1 2 3 4 5 6 7 8 9'

die() { printf 'nginx/slots.sh: %s\n' "$2" >&2; exit "$1"; }

# socket GROUP COLOR: prints the path of the color's socket.
socket() {
  case $1 in
    resolve)  printf '%s/redirects/%s.sock\n' "$sockets" "$2" ;;
    web)      printf '%s/web/%s.sock\n' "$sockets" "$2" ;;
    refusals) printf '%s/web/%s-refusals.sock\n' "$sockets" "$2" ;;
  esac
}

# point SLOT TARGET: makes the link, unless it is right already.
point() {
  [ "$(readlink "$slots/$1" || true)" != "$2" ] || return 0
  # The name has the process id, so two runs do not rename each other's link.
  { ln -sfn "$2" "$slots/.$1.$$" && mv -fT "$slots/.$1.$$" "$slots/$1"; } 2>/dev/null \
    || die 73 "cannot write $slots/$1; make the user $(id -u) the owner of $slots, and check that the disk has space"
}

create_missing() {
  for group in resolve web; do
    for index in $indices; do
      [ -L "$slots/$group-$index" ] || point "$group-$index" "$(socket "$group" blue)"
    done
  done
  [ -L "$slots/refusals" ] || point refusals "$(socket refusals blue)"
}

print_state() {
  for group in resolve web; do
    blue=0 green=0
    for index in $indices; do
      case $(readlink "$slots/$group-$index" || true) in
        "$(socket "$group" blue)")  blue=$((blue + 1)) ;;
        "$(socket "$group" green)") green=$((green + 1)) ;;
      esac
    done
    printf '%s blue=%s green=%s\n' "$group" "$blue" "$green"
    [ $((blue + green)) = 10 ] || die 73 "a slot of $group in $slots points elsewhere; repair it with: slots.sh COLOR COUNT"
  done
}

# require COLOR: ends unless both processes of the color listen.
require() {
  for group in resolve web; do
    [ -S "$(socket "$group" "$1")" ] || die 69 "$1 does not run: $(socket "$group" "$1") is absent; no slot was changed"
  done
}

[ -d "$slots" ] || die 73 "$slots is not a directory; mount the volume \`slots\` there"
case $# in
  0) create_missing; print_state; exit ;;
  2) ;;
  *) die 64 'the arguments must be COLOR COUNT, such as: green 1' ;;
esac
color=$1 count=$2
case $color in
  blue)  other=green ;;
  green) other=blue ;;
  *)     die 64 "the color must be blue or green: $color" ;;
esac
case $count in
  [0-9] | 10) ;;
  *) die 64 "the count must be a whole number from 0 to 10: $count" ;;
esac
[ "$count" = 0 ] || require "$color"
[ "$count" = 10 ] || require "$other"

for group in resolve web; do
  for index in $indices; do
    # Spreads `count` slots evenly over ten.
    if [ $((index * count % 10)) -lt "$count" ]; then to=$color; else to=$other; fi
    point "$group-$index" "$(socket "$group" "$to")"
  done
done
# One address for the datagrams, to the color with more of the requests.
if [ "$count" -ge 5 ]; then to=$color; else to=$other; fi
point refusals "$(socket refusals "$to")"
print_state
