# The repository of `linnet-backup`, which encrypts everything before it leaves the server. Its key is created outside
# Terraform (README.md), because a key that a resource creates is a secret in the state.
locals {
  with_bucket       = var.backup_bucket != null
  backup_endpoint   = "${var.backup_region}.digitaloceanspaces.com"
  backup_repository = local.with_bucket ? "s3://${var.backup_bucket}/linnet?endpoint=${local.backup_endpoint}&region=${var.backup_region}" : null
}

resource "digitalocean_spaces_bucket" "backups" {
  count  = local.with_bucket ? 1 : 0
  name   = var.backup_bucket
  region = var.backup_region
  acl    = "private"

  # A key that deletes or overwrites objects, such as a stolen one, leaves their versions.
  versioning {
    enabled = true
  }

  lifecycle_rule {
    id                                     = "old-versions"
    enabled                                = true
    abort_incomplete_multipart_upload_days = 7

    noncurrent_version_expiration {
      days = var.backup_noncurrent_days
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}
