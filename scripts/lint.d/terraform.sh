# shellcheck shell=bash
# The check of scripts/lint for deploy/terraform. `make test-terraform` has the slow part.

check_terraform() {
  local python schemas status=0
  python=$("$LINNET_ROOT/scripts/python-tools")/python
  schemas=$("$LINNET_ROOT/scripts/terraform-schemas")
  "$python" -B "$LINNET_ROOT/scripts/terraform.d/check.py" "$schemas" deploy/terraform/{digitalocean,aws,aws/state} || status=1
  "$python" -B "$LINNET_ROOT/scripts/terraform.d/redis_users.py" || status=1
  "$python" -B "$LINNET_ROOT/scripts/terraform.d/costs.py" || status=1
  "$python" -B "$LINNET_ROOT/scripts/terraform.d/kubernetes_names.py" || status=1
  return "$status"
}
