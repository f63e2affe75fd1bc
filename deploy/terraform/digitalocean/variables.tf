variable "name" {
  description = "Name of the installation; the prefix of every resource's name, and a tag."
  type        = string
  default     = "linnet"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "The name must have 3 to 32 lowercase letters, digits and hyphens, and begin with a letter."
  }
}

variable "region" {
  description = "Region of the droplet, the volume and the reserved address, such as fra1."
  type        = string
  default     = "fra1"

  validation {
    condition     = can(regex("^[a-z]{3}[0-9]$", var.region))
    error_message = "The region must be three letters and a digit, such as fra1; `doctl compute region list` lists them."
  }
}

variable "domain" {
  description = "Domain of the short links, such as go.example.com; the same as in the cloud-init file."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,63}$", var.domain))
    error_message = "The domain must be a name such as go.example.com."
  }
}

variable "dns_zone" {
  description = "Zone at DigitalOcean to which the domain belongs, such as example.com; null if another provider serves it."
  type        = string
  default     = null

  validation {
    condition     = var.dns_zone == null ? true : var.domain == var.dns_zone || endswith(var.domain, ".${var.dns_zone}")
    error_message = "The domain must be the zone itself or a name in it."
  }
}

variable "cloud_init_file" {
  description = "File that `deploy/deploy.sh cloud-init` printed."
  type        = string
  default     = "cloud-init.yaml"
}

variable "droplet_size" {
  description = "Plan of the droplet: at least 2 GB of memory."
  type        = string
  default     = "s-2vcpu-2gb"

  validation {
    condition     = can(regex("^[a-z0-9.-]+$", var.droplet_size)) && !can(regex("-(512mb|1gb)(-|$)", var.droplet_size))
    error_message = "The size must be a plan with at least 2 GB of memory, such as s-2vcpu-2gb; `doctl compute size list` lists them."
  }
}

variable "ssh_keys" {
  description = "Ids or fingerprints of SSH keys in your account. Without one, DigitalOcean would mail a password for root."
  type        = set(string)

  validation {
    condition     = length(var.ssh_keys) > 0
    error_message = "At least one key is needed; `doctl compute ssh-key list` lists them."
  }
}

variable "ssh_sources" {
  description = "Networks that may connect over SSH. Deployments from GitHub's own runners need 0.0.0.0/0 and ::/0."
  type        = set(string)

  validation {
    condition     = length(var.ssh_sources) > 0 && alltrue([for network in var.ssh_sources : can(cidrhost(network, 0))])
    error_message = "Name at least one network in CIDR form, such as 203.0.113.7/32."
  }
}

variable "outbound_tcp_ports" {
  description = "TCP ports that the server may connect to: DNS, HTTP for Debian's packages, HTTPS. Add 22 for a backup repository over SFTP."
  type        = set(number)
  default     = [53, 80, 443]

  validation {
    condition     = alltrue([for port in var.outbound_tcp_ports : port >= 1 && port <= 65535 && floor(port) == port])
    error_message = "Each port must be a whole number from 1 to 65535."
  }
}

variable "volume_size" {
  description = "Size of the volume that holds Docker's images and volumes, and so the database, in GiB. It can grow, not shrink."
  type        = number
  default     = 20

  validation {
    condition     = var.volume_size >= 10 && var.volume_size <= 16384 && floor(var.volume_size) == var.volume_size
    error_message = "The size must be a whole number from 10 to 16384."
  }
}

variable "backup_bucket" {
  description = "Name of the bucket for backups, unique among all customers of its region; null for a repository elsewhere."
  type        = string
  default     = null

  validation {
    condition     = var.backup_bucket == null ? true : can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.backup_bucket))
    error_message = "The bucket's name must have 3 to 63 lowercase letters, digits and hyphens."
  }
}

variable "backup_region" {
  description = "Region of the bucket. Another one than the droplet's survives the loss of a data center."
  type        = string
  default     = "ams3"

  validation {
    condition     = can(regex("^[a-z]{3}[0-9]$", var.backup_region))
    error_message = "The region must be three letters and a digit, such as ams3."
  }
}

variable "backup_noncurrent_days" {
  description = "Days for which the bucket keeps deleted and overwritten objects."
  type        = number
  default     = 30

  validation {
    condition     = var.backup_noncurrent_days >= 7 && var.backup_noncurrent_days <= 365
    error_message = "The number of days must be from 7 to 365."
  }
}

variable "vpc_cidr" {
  description = "Private network of the droplet. It must not overlap your other networks, nor 10.201.0.0/16, which Docker uses."
  type        = string
  default     = "10.110.0.0/24"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && !startswith(var.vpc_cidr, "10.201.")
    error_message = "The network must be in CIDR form, such as 10.110.0.0/24, and outside 10.201.0.0/16."
  }
}
