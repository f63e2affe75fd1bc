# One key for each kind of data, so that a policy can name who may decrypt what.

locals {
  key_admins = "arn:${local.partition}:iam::${local.account}:root"
}

# The account's IAM policies decide about the keys, as AWS recommends: a key whose administrators are gone is lost.
data "aws_iam_policy_document" "key" {
  # checkov:skip=CKV_AWS_109:The policy of a key applies to that key only, and without it no user could administer the key.
  # checkov:skip=CKV_AWS_111:As above: the resource of a key's policy is the key.
  # checkov:skip=CKV_AWS_356:As above: the resource of a key's policy is the key.
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = [local.key_admins]
    }
  }
}

data "aws_iam_policy_document" "key_logs" {
  source_policy_documents = [data.aws_iam_policy_document.key.json]

  statement {
    sid       = "CloudWatch"
    actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${var.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:${local.partition}:logs:${var.region}:${local.account}:log-group:*"]
    }
  }
}

# PostgreSQL, Redis, the secrets, and Kubernetes' own secrets.
resource "aws_kms_key" "data" {
  description             = "${var.name}: stores and secrets"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_key" "backups" {
  description             = "${var.name}: backups"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_key" "logs" {
  description             = "${var.name}: logs"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key_logs.json
}

resource "aws_kms_alias" "main" {
  for_each = {
    data    = aws_kms_key.data.key_id
    backups = aws_kms_key.backups.key_id
    logs    = aws_kms_key.logs.key_id
  }

  name          = "alias/${var.name}-${each.key}"
  target_key_id = each.value
}
