# PostgreSQL: a primary with a synchronous standby in another zone, and a replica for reads.

resource "aws_db_subnet_group" "main" {
  name        = var.name
  description = "Subnets without a route to the internet"
  subnet_ids  = [for subnet in aws_subnet.stores : subnet.id]
}

resource "aws_security_group" "database" {
  name        = "${var.name}-postgres"
  description = "PostgreSQL, from the cluster only"
  vpc_id      = aws_vpc.main.id
  tags        = { Name = "${var.name}-postgres" }
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  description                  = "PostgreSQL from the cluster"
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  referenced_security_group_id = aws_eks_cluster.main.vpc_config[0].cluster_security_group_id
}

resource "aws_db_parameter_group" "main" {
  name_prefix = "${var.name}-"
  family      = "postgres${var.database_version}"
  description = "PostgreSQL of ${var.name}"

  # Clients without TLS are refused; Linnet connects with sslmode=verify-full.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "500"
  }

  parameter {
    name  = "log_connections"
    value = "1"
  }

  parameter {
    name  = "log_disconnections"
    value = "1"
  }

  # `CREATE ROLE … PASSWORD` is a statement of this kind, and the log keeps its text for a year.
  parameter {
    name  = "log_statement"
    value = "none"
  }

  lifecycle {
    create_before_destroy = true
  }
}

data "aws_iam_policy_document" "monitoring_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["monitoring.rds.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_iam_role" "monitoring" {
  name               = "${var.name}-rds-monitoring"
  assume_role_policy = data.aws_iam_policy_document.monitoring_trust.json
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

# Created first, so that RDS does not create them without a key and an end.
resource "aws_cloudwatch_log_group" "database" {
  for_each          = toset([for pair in setproduct(var.database_replica ? ["primary", "replica"] : ["primary"], ["postgresql", "upgrade"]) : join("/", pair)])
  name              = "/aws/rds/instance/${var.name}-${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.logs.arn
}

resource "aws_db_instance" "primary" {
  identifier     = "${var.name}-primary"
  engine         = "postgres"
  instance_class = var.database_class
  db_name        = "linnet"
  username       = "linnet_admin"

  # The major version only: RDS raises the minor one in the maintenance window. A higher major version is an upgrade in the
  # next window, of the replica as well.
  engine_version              = var.database_version
  allow_major_version_upgrade = true

  password_wo         = ephemeral.aws_secretsmanager_secret_version.password["postgres-password-admin"].secret_string
  password_wo_version = var.password_version

  multi_az               = true
  db_subnet_group_name   = aws_db_subnet_group.main.name
  vpc_security_group_ids = [aws_security_group.database.id]
  parameter_group_name   = aws_db_parameter_group.main.name
  publicly_accessible    = false
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  storage_type          = "gp3"
  allocated_storage     = var.database_storage.initial
  max_allocated_storage = var.database_storage.maximum
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.data.arn

  backup_retention_period   = var.database_backup_days
  backup_window             = "02:00-03:00"
  maintenance_window        = "sun:03:30-sun:04:30"
  copy_tags_to_snapshot     = true
  delete_automated_backups  = false
  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = false
  final_snapshot_identifier = "${var.name}-final-${formatdate("YYYYMMDDhhmmss", plantimestamp())}"

  auto_minor_version_upgrade          = true
  iam_database_authentication_enabled = true
  monitoring_interval                 = 60
  monitoring_role_arn                 = aws_iam_role.monitoring.arn
  performance_insights_enabled        = true
  performance_insights_kms_key_id     = aws_kms_key.data.arn
  enabled_cloudwatch_logs_exports     = ["postgresql", "upgrade"]

  depends_on = [aws_cloudwatch_log_group.database, aws_iam_role_policy_attachment.monitoring]

  lifecycle {
    prevent_destroy = true
    # The time at which the database was created, so that a second one of this name has a snapshot of its own.
    ignore_changes = [final_snapshot_identifier]
  }
}

# For statistics, lists and exports. Everything in it is in the primary as well.
resource "aws_db_instance" "replica" {
  count = var.database_replica ? 1 : 0
  # checkov:skip=CKV_AWS_157:While the replica is unavailable, its readers use the primary, which has a standby.
  identifier          = "${var.name}-replica"
  replicate_source_db = aws_db_instance.primary.identifier
  instance_class      = var.database_replica_class

  vpc_security_group_ids = [aws_security_group.database.id]
  parameter_group_name   = aws_db_parameter_group.main.name
  publicly_accessible    = false
  ca_cert_identifier     = "rds-ca-rsa2048-g1"
  multi_az               = false

  storage_type          = "gp3"
  max_allocated_storage = var.database_storage.maximum
  storage_encrypted     = true

  maintenance_window    = "sat:03:30-sat:04:30"
  copy_tags_to_snapshot = true
  deletion_protection   = var.deletion_protection
  skip_final_snapshot   = true

  auto_minor_version_upgrade          = true
  iam_database_authentication_enabled = true
  monitoring_interval                 = 60
  monitoring_role_arn                 = aws_iam_role.monitoring.arn
  performance_insights_enabled        = true
  performance_insights_kms_key_id     = aws_kms_key.data.arn
  enabled_cloudwatch_logs_exports     = ["postgresql", "upgrade"]

  depends_on = [aws_cloudwatch_log_group.database]
}
