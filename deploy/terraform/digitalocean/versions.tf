terraform {
  # OpenTofu 1.11 or Terraform 1.11: both know write-only arguments and lock files in S3.
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    # The exact version, whose schema `scripts/lint terraform` checks these files against. README.md: how to raise it.
    digitalocean = {
      source  = "digitalocean/digitalocean"
      version = "2.71.0"
    }
  }
}

# Credentials come from the environment: DIGITALOCEAN_TOKEN, and for the bucket SPACES_ACCESS_KEY_ID and
# SPACES_SECRET_ACCESS_KEY. None of them reaches the state.
provider "digitalocean" {}
