# One server for Linnet: what docs/DEPLOY.md expects, from nothing. README.md is the guide.

resource "digitalocean_tag" "installation" {
  name = var.name
}

resource "digitalocean_vpc" "installation" {
  name        = "${var.name}-${var.region}"
  region      = var.region
  ip_range    = var.vpc_cidr
  description = "Network of the short-link server ${var.domain}"
}

# The database and everything else that a new droplet must find again.
resource "digitalocean_volume" "docker" {
  name                    = local.volume_name
  region                  = var.region
  size                    = var.volume_size
  description             = "Docker's data of ${var.domain}"
  initial_filesystem_type = "ext4"
  tags                    = [digitalocean_tag.installation.id]

  lifecycle {
    prevent_destroy = true
  }
}

resource "digitalocean_droplet" "server" {
  name              = var.name
  region            = var.region
  size              = var.droplet_size
  image             = "debian-13-x64"
  vpc_uuid          = digitalocean_vpc.installation.id
  ssh_keys          = var.ssh_keys
  volume_ids        = [digitalocean_volume.docker.id]
  user_data         = local.user_data
  monitoring        = true
  droplet_agent     = false
  graceful_shutdown = true
  tags              = [digitalocean_tag.installation.id]

  lifecycle {
    # A change of either would replace the server. `deploy.sh init` changes a prepared server; `terraform apply
    # -replace=digitalocean_droplet.server` makes a new one with the same volume and address.
    ignore_changes = [user_data, ssh_keys, image]

    precondition {
      condition     = strcontains(local.cloud_init_text, "\"--domain\", \"${var.domain}\"")
      error_message = "The cloud-init file was made for another domain; print it again with --domain ${var.domain}."
    }

    precondition {
      condition     = var.backup_bucket == null ? true : strcontains(local.cloud_init_text, "\"s3://${var.backup_bucket}/")
      error_message = "The cloud-init file lacks the bucket; print it again with --backup ${coalesce(local.backup_repository, "-")}."
    }

    # DigitalOcean's limit.
    precondition {
      condition     = length(local.user_data) <= 65536
      error_message = "The cloud-init file is too long; name fewer keys."
    }
  }
}

# The domain leads to this address, which moves to a new droplet in seconds.
resource "digitalocean_reserved_ip" "server" {
  region = var.region

  lifecycle {
    prevent_destroy = true
  }
}

resource "digitalocean_reserved_ip_assignment" "server" {
  ip_address = digitalocean_reserved_ip.server.ip_address
  droplet_id = digitalocean_droplet.server.id
}
