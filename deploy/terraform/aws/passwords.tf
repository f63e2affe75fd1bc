# Passwords of PostgreSQL and Redis, and the token between gateway and shorteners. They exist in Secrets Manager only:
# ephemeral values and write-only arguments do not reach plans and states. RDS could manage its password itself, but
# refuses a read replica then (docs/adr/035).

locals {
  # The names that deploy/kubernetes/overlays/aws reads; `scripts/lint terraform` compares them. Only the administrator's is
  # for people: linnet-role.sh creates the other roles with it.
  passwords = toset(concat(
    ["postgres-password-admin", "postgres-password", "postgres-password-exporter", "service-token"],
    [for role in keys(local.cache_users) : "redis-password-${role}"],
  ))

  # Not secret, but read by the same ExternalSecrets, so that no manifest names an account or a host.
  addresses = {
    postgres-host = aws_db_instance.primary.address
    redis-host    = aws_elasticache_replication_group.main.primary_endpoint_address
    backup-bucket = "s3://${aws_s3_bucket.backups.bucket}?region=${var.region}"
  }
}

ephemeral "aws_secretsmanager_random_password" "new" {
  for_each            = local.passwords
  password_length     = 48
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "password" {
  # checkov:skip=CKV2_AWS_57:Pods read a password when they start, so a rotation is a rollout; `password_version` begins it.
  for_each                = local.passwords
  name                    = "${var.name}/${each.key}"
  description             = "${each.key} of Linnet, as plain text"
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = 30
}

resource "aws_secretsmanager_secret_version" "password" {
  for_each                 = local.passwords
  secret_id                = aws_secretsmanager_secret.password[each.key].id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.new[each.key].random_password
  secret_string_wo_version = var.password_version
}

# Read back, so that a store gets the password that was stored, also after a run that ended between the two.
ephemeral "aws_secretsmanager_secret_version" "password" {
  for_each   = local.passwords
  secret_id  = aws_secretsmanager_secret.password[each.key].id
  version_id = aws_secretsmanager_secret_version.password[each.key].version_id
}

resource "aws_secretsmanager_secret" "address" {
  # checkov:skip=CKV2_AWS_57:An address is not rotated.
  for_each                = toset(keys(local.addresses))
  name                    = "${var.name}/${each.key}"
  description             = "${each.key} of Linnet, as plain text"
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = 30
}

resource "aws_secretsmanager_secret_version" "address" {
  for_each      = toset(keys(local.addresses))
  secret_id     = aws_secretsmanager_secret.address[each.key].id
  secret_string = local.addresses[each.key]
}
