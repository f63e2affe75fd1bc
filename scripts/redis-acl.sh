# shellcheck shell=bash
# The users of Redis, for `scripts/service redis` and the containers. Source it after lib.sh; it runs nothing.
#
# Each role reaches only its own keys, channels and commands. A process that is taken over, or a password that leaks,
# therefore changes no link of another role's data:
#   gateway    rate limits and the invalidation bus
#   shortener  links, clicks, jobs, unique visitors and the invalidation bus; also the command line
#   worker     the same, and rewriting the append-only file
#   exporter   reads figures
#   operator   everything: scripts/oncall and health checks
# No client can log in as `default`, the user without a name: it has no password, and needs one.

# In the order of the arguments of redis_acl.
# shellcheck disable=SC2034 # scripts that source this file use it
redis_roles=(gateway shortener worker exporter operator)

# It has all rights, because Redis before 8.4 and Valkey before 9.1 replay the append-only file as this user, and drop
# each transaction, and each script that writes twice, that it may not execute (redis/redis#14541).
# shellcheck disable=SC2034 # scripts that source this file use it
redis_default_user='user default reset on ~* &* +@all'

# redis_acl DIR: prints the ACL file for the passwords in DIR/ROLE-password, which exist. Only hashes appear in it.
redis_acl() {
  local role hash rules
  # Of CLIENT only what names and identifies the own connection.
  local base='resetchannels -@all +@connection -@dangerous'
  local bus='&linnet:changes &linnet:changes:heartbeat:* +publish +subscribe +unsubscribe'
  # Names in braces are those in a Redis Cluster.
  local probe='~linnet:probe ~{linnet}:probe ~{linnet}:absent +set'
  local scripts='+eval +evalsha +script|load +script|exists'
  local data='~l:* ~linnet:clicks ~linnet:clicks:* ~linnet:jobs:* ~linnet:v:* ~{linnet}:l:* ~{linnet}:clicks ~{linnet}:clicks:* ~{linnet}:jobs:* ~{linnet}:v:* +@read +@write +@transaction -@dangerous +info +role +cluster|slots'
  for role in "${redis_roles[@]}"; do
    case $role in
      gateway)   rules="$base $bus $probe $scripts ~linnet:rate:* ~{linnet}:rate:* +get +del +expire +pexpire +time +role +cluster|slots" ;;
      shortener) rules="$base $bus $probe $scripts $data" ;;
      worker)    rules="$base $bus $probe $scripts $data +bgrewriteaof" ;;
      exporter)  rules="$base %R~linnet:clicks %R~linnet:clicks:* %R~linnet:jobs:* %R~{linnet}:clicks %R~{linnet}:clicks:* %R~{linnet}:jobs:* +info +xinfo +xlen +type +config|get +slowlog|len +slowlog|get +latency|latest +latency|histogram" ;;
      operator)  rules='~* &* +@all' ;;
    esac
    hash=$(printf '%s' "$(<"$1/$role-password")" | sha256sum | cut -c 1-64)
    printf 'user %s on #%s %s\n' "$role" "$hash" "$rules"
  done
}
