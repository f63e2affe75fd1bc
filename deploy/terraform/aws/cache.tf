# Redis: a primary and two replicas, one in each zone. The engine is Valkey, which speaks the same protocol, is newer than
# ElastiCache's Redis and costs a fifth less.

resource "aws_elasticache_subnet_group" "main" {
  name        = var.name
  description = "Subnets without a route to the internet"
  subnet_ids  = [for subnet in aws_subnet.stores : subnet.id]
}

resource "aws_security_group" "cache" {
  name        = "${var.name}-redis"
  description = "Redis, from the cluster only"
  vpc_id      = aws_vpc.main.id
  tags        = { Name = "${var.name}-redis" }
}

resource "aws_vpc_security_group_ingress_rule" "cache" {
  security_group_id            = aws_security_group.cache.id
  description                  = "Redis from the cluster"
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  referenced_security_group_id = aws_eks_cluster.main.vpc_config[0].cluster_security_group_id
}

resource "aws_elasticache_parameter_group" "main" {
  name        = var.name
  family      = "valkey8"
  description = "Redis of ${var.name}"

  # Streams and rate limits of one store: only keys with a lifetime may be evicted (docs/adr/018).
  parameter {
    name  = "maxmemory-policy"
    value = "volatile-lru"
  }

  # For the copy to a new replica and the snapshot.
  parameter {
    name  = "reserved-memory-percent"
    value = "25"
  }
}

# --- Users ------------------------------------------------------------------------------------------------------------
# The users of scripts/redis-acl.sh, whose rules `scripts/lint terraform` compares. ElastiCache refuses rules that name a
# command that it lacks: BGREWRITEAOF for the worker, CONFIG for the exporter. The operator's user is left out.
locals {
  cache_base    = "resetchannels -@all +@connection -@dangerous"
  cache_bus     = "&linnet:changes &linnet:changes:heartbeat:* +publish +subscribe +unsubscribe"
  cache_probe   = "~linnet:probe ~{linnet}:probe ~{linnet}:absent +set"
  cache_scripts = "+eval +evalsha +script|load +script|exists"
  cache_data    = "~l:* ~linnet:clicks ~linnet:clicks:* ~linnet:jobs:* ~linnet:v:* ~{linnet}:l:* ~{linnet}:clicks ~{linnet}:clicks:* ~{linnet}:jobs:* ~{linnet}:v:* +@read +@write +@transaction -@dangerous +info +role +cluster|slots"
  cache_streams = "%R~linnet:clicks %R~linnet:clicks:* %R~linnet:jobs:* %R~{linnet}:clicks %R~{linnet}:clicks:* %R~{linnet}:jobs:*"
  cache_figures = "+info +xinfo +xlen +type +slowlog|len +slowlog|get +latency|latest +latency|histogram"
  cache_common  = "${local.cache_base} ${local.cache_bus} ${local.cache_probe} ${local.cache_scripts}"

  cache_users = {
    gateway   = "${local.cache_common} ~linnet:rate:* ~{linnet}:rate:* +get +del +expire +pexpire +time +role +cluster|slots"
    shortener = "${local.cache_common} ${local.cache_data}"
    worker    = "${local.cache_common} ${local.cache_data}"
    exporter  = "${local.cache_base} ${local.cache_streams} ${local.cache_figures}"
  }
}

resource "aws_elasticache_user" "main" {
  for_each             = local.cache_users
  user_id              = "${var.name}-${each.key}"
  user_name            = each.key
  engine               = "valkey"
  access_string        = "on ${each.value}"
  passwords_wo         = ephemeral.aws_secretsmanager_secret_version.password["redis-password-${each.key}"].secret_string
  passwords_wo_version = var.password_version
}

resource "aws_elasticache_user_group" "main" {
  user_group_id = var.name
  engine        = "valkey"
  user_ids      = [for user in aws_elasticache_user.main : user.user_id]
}

resource "aws_cloudwatch_log_group" "cache" {
  for_each          = toset(["slow-log", "engine-log"])
  name              = "/aws/elasticache/${var.name}/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.logs.arn
}

resource "aws_elasticache_replication_group" "main" {
  replication_group_id = var.name
  description          = "Cache, rate limits and streams of ${var.name}"
  engine               = "valkey"
  engine_version       = "8.1"
  node_type            = var.cache_node_type
  parameter_group_name = aws_elasticache_parameter_group.main.name

  num_cache_clusters          = length(local.zones)
  preferred_cache_cluster_azs = local.zones
  automatic_failover_enabled  = true
  multi_az_enabled            = true

  port               = 6379
  subnet_group_name  = aws_elasticache_subnet_group.main.name
  security_group_ids = [aws_security_group.cache.id]

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = "true"
  kms_key_id                 = aws_kms_key.data.arn
  user_group_ids             = [aws_elasticache_user_group.main.user_group_id]

  # Clicks and jobs that are not in PostgreSQL yet.
  snapshot_retention_limit   = 3
  snapshot_window            = "01:00-02:00"
  maintenance_window         = "sun:05:00-sun:06:00"
  auto_minor_version_upgrade = "true"
  apply_immediately          = false

  dynamic "log_delivery_configuration" {
    for_each = aws_cloudwatch_log_group.cache

    content {
      destination_type = "cloudwatch-logs"
      destination      = log_delivery_configuration.value.name
      log_format       = "json"
      log_type         = log_delivery_configuration.key
    }
  }

  lifecycle {
    # The node that is primary now may be another one after a failover.
    ignore_changes = [preferred_cache_cluster_azs]
  }
}
