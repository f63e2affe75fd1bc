# `make test-terraform` runs this without an account: a stand-in for the provider has its schema, and plans.
variables {
  account_id        = "123456789012"
  kubernetes_admins = ["arn:aws:iam::123456789012:role/operators"]
  github_repository = "linnet-url/linnet"
}

run "three_zones_with_everything_in_each" {
  command = plan

  assert {
    condition     = join(",", output.zones) == "eu-central-1a,eu-central-1b,eu-central-1c"
    error_message = "The zones must be those of the region."
  }

  assert {
    condition     = length(aws_nat_gateway.main) == 3 && length(aws_subnet.nodes) == 3 && length(aws_subnet.stores) == 3
    error_message = "Each zone must have its gateway and its subnets."
  }

  assert {
    condition = length(setunion([for subnet in concat(values(aws_subnet.public), values(aws_subnet.nodes), values(aws_subnet.stores)) :
    toset([subnet.cidr_block])]...)) == 9
    error_message = "The networks of the subnets must differ."
  }

  assert {
    condition     = aws_elasticache_replication_group.main.num_cache_clusters == 3
    error_message = "Each zone must have a node of Redis."
  }

  assert {
    condition     = aws_db_instance.primary.multi_az && length(aws_db_instance.replica) == 0 && output.postgres_replica_host == null
    error_message = "The database must have a standby, and no replica that nobody asked for."
  }
}

run "a_replica_by_choice" {
  command = plan

  variables {
    database_replica = true
  }

  assert {
    condition     = aws_db_instance.replica[0].replicate_source_db == "linnet-primary" && aws_db_instance.replica[0].storage_encrypted && !aws_db_instance.replica[0].publicly_accessible
    error_message = "The replica must copy the primary, encrypted and closed."
  }

  assert {
    condition     = contains(keys(aws_cloudwatch_log_group.database), "replica/postgresql")
    error_message = "The replica's logs must have a key and an end."
  }
}

run "stores_are_closed_and_encrypted" {
  command = plan

  assert {
    condition     = !aws_db_instance.primary.publicly_accessible && aws_db_instance.primary.storage_encrypted
    error_message = "The database must be encrypted and closed."
  }

  assert {
    condition     = aws_elasticache_replication_group.main.transit_encryption_mode == "required"
    error_message = "Redis must accept TLS only."
  }

  assert {
    condition     = alltrue([for rule in [aws_vpc_security_group_ingress_rule.database, aws_vpc_security_group_ingress_rule.cache] : rule.cidr_ipv4 == null])
    error_message = "Stores must accept connections from the cluster's group only."
  }

  assert {
    condition     = aws_s3_bucket_object_lock_configuration.backups.rule[0].default_retention[0].mode == "COMPLIANCE"
    error_message = "No user may delete a backup."
  }

  assert {
    condition     = !aws_eks_cluster.main.vpc_config[0].endpoint_public_access
    error_message = "Without named networks the cluster's API must be closed."
  }
}

run "passwords_do_not_reach_the_plan" {
  command = plan

  assert {
    condition     = toset(keys(aws_secretsmanager_secret.password)) == toset(["postgres-password", "postgres-password-admin", "postgres-password-exporter", "redis-password-exporter", "redis-password-gateway", "redis-password-shortener", "redis-password-worker", "service-token"])
    error_message = "Each user needs a password."
  }

  assert {
    condition     = toset([for secret in aws_secretsmanager_secret.address : secret.name]) == toset(["linnet/backup-bucket", "linnet/postgres-host", "linnet/redis-host"])
    error_message = "The cluster needs the addresses of the stores and of the bucket."
  }

  # Statements with a password are statements that change the schema.
  assert {
    condition     = [for parameter in aws_db_parameter_group.main.parameter : parameter.value if parameter.name == "log_statement"] == ["none"]
    error_message = "PostgreSQL's log must have no text of statements."
  }

  assert {
    condition = alltrue(concat(
      [for secret in aws_secretsmanager_secret_version.password : secret.secret_string_wo == null],
      [for user in aws_elasticache_user.main : user.passwords_wo == null],
      [aws_db_instance.primary.password_wo == null, aws_db_instance.primary.password == null],
    ))
    error_message = "Passwords must be write-only."
  }
}

run "one_gateway_and_an_open_api_by_choice" {
  command = plan

  variables {
    nat_gateway_per_zone   = false
    kubernetes_api_sources = ["203.0.113.0/24"]
    github_repository      = null
  }

  assert {
    condition     = toset(keys(aws_nat_gateway.main)) == toset(["eu-central-1a"]) && length(aws_route.nodes) == 3
    error_message = "All zones must share one gateway."
  }

  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_public_access && aws_eks_cluster.main.vpc_config[0].public_access_cidrs == toset(["203.0.113.0/24"])
    error_message = "Only the named networks may reach the API."
  }

  assert {
    condition     = length(aws_iam_role.github) == 0 && output.github_role_arn == null
    error_message = "Without a repository there must be no role."
  }
}

run "an_account_that_has_the_provider_of_github" {
  command = plan

  variables {
    github_oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0 && length(aws_iam_role.github) == 1
    error_message = "An account has one provider at most."
  }

  assert {
    condition     = aws_eks_access_entry.github[0].kubernetes_groups == toset(["linnet-deployer"])
    error_message = "The role's rights in the cluster are those of deployer.yaml."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    account_id             = "12345"
    vpc_cidr               = "10.40.0.0/20"
    kubernetes_version     = "1.30"
    kubernetes_admins      = []
    kubernetes_api_sources = ["0.0.0.0/0"]
    database_version       = "17.6"
    database_storage       = { initial = 100, maximum = 100 }
    backup_retention_days  = 0
    github_repository      = "linnet"

    github_oidc_provider_arn = "arn:aws:iam::123456789012:role/github"
    tags                     = { Name = "x" }
    zones                    = ["a", "b", "b"]
  }

  expect_failures = [
    var.account_id, var.vpc_cidr, var.kubernetes_version, var.kubernetes_admins, var.kubernetes_api_sources, var.database_version,
    var.database_storage, var.backup_retention_days, var.github_repository, var.github_oidc_provider_arn, var.tags, var.zones,
  ]
}
