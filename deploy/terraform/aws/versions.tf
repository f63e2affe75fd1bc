terraform {
  # OpenTofu 1.11 or Terraform 1.11: both know write-only arguments and lock files in S3.
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    # The exact version, whose schema `scripts/lint terraform` checks these files against. README.md: how to raise it.
    aws = {
      source  = "hashicorp/aws"
      version = "6.66.0"
    }
  }

  # `state/` creates the bucket and the key and writes backend.hcl for `terraform init -backend-config=backend.hcl`.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = local.tags
  }
}
