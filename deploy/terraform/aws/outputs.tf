output "cluster_name" {
  description = "Name of the cluster, for `aws eks update-kubeconfig`."
  value       = aws_eks_cluster.main.name
}

output "postgres_host" {
  description = "Host of the primary; it stays the same in a failover."
  value       = aws_db_instance.primary.address
}

output "postgres_replica_host" {
  description = "Host of the read replica; null without one."
  value       = one(aws_db_instance.replica[*].address)
}

output "redis_host" {
  description = "Host of Redis' primary; it stays the same in a failover. TLS only, port 6379."
  value       = aws_elasticache_replication_group.main.primary_endpoint_address
}

output "secrets" {
  description = "Names of the secrets in Secrets Manager."
  value       = { for store, secret in aws_secretsmanager_secret.password : store => secret.name }
}

output "backup_bucket" {
  description = "Bucket for backups, with object lock."
  value       = aws_s3_bucket.backups.bucket
}

output "github_role_arn" {
  description = "Role for `aws-actions/configure-aws-credentials`; null without a repository."
  value       = one(aws_iam_role.github[*].arn)
}

output "zones" {
  description = "Availability zones of the subnets."
  value       = local.zones
}
