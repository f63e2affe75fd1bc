# Redis: a primary and two replicas, one in each zone.

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
  family      = "redis7"
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
