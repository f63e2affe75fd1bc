variable "name" {
  description = "Name of the installation; the prefix of every resource's name."
  type        = string
  default     = "linnet"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "The name must have 3 to 20 lowercase letters, digits and hyphens, and begin with a letter."
  }
}

variable "account_id" {
  description = "Id of the AWS account. A plan with credentials of another account fails."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "The account's id must have 12 digits."
  }
}

variable "region" {
  description = "Region with at least three availability zones, such as eu-central-1."
  type        = string
  default     = "eu-central-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region must be a name such as eu-central-1."
  }
}

variable "zones" {
  description = "Letters of the three availability zones. In some regions an account lacks one: `aws ec2 describe-availability-zones`."
  type        = list(string)
  default     = ["a", "b", "c"]

  validation {
    condition     = length(var.zones) == 3 && length(toset(var.zones)) == 3 && alltrue([for letter in var.zones : can(regex("^[a-z]$", letter))])
    error_message = "Name three different letters, such as a, b and c."
  }
}

variable "tags" {
  description = "Tags of every resource, besides Application and ManagedBy."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.tags) : !contains(["Application", "ManagedBy", "Name"], key) && !startswith(key, "aws:")])
    error_message = "Application, ManagedBy, Name and names that begin with aws: are taken."
  }
}

variable "vpc_cidr" {
  description = "Network of the VPC, a /16, which must not overlap networks that you connect to it."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && endswith(var.vpc_cidr, "/16")
    error_message = "The network must be a /16 in CIDR form, such as 10.40.0.0/16."
  }
}

variable "nat_gateway_per_zone" {
  description = "Whether each zone has a NAT gateway. With one gateway, the loss of its zone cuts all nodes off from the internet, not from visitors."
  type        = bool
  default     = true
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes. AWS raises it at the end of its standard support (for 1.35: 2027-03-27); raise this value before."
  type        = string
  default     = "1.35"

  validation {
    condition     = contains(["1.34", "1.35", "1.36", "1.37"], var.kubernetes_version)
    error_message = "Linnet's manifests are checked against 1.34 to 1.37."
  }
}

variable "kubernetes_api_sources" {
  description = "Networks that may reach the cluster's API over the internet; empty for access from the VPC only."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for network in var.kubernetes_api_sources : can(cidrhost(network, 0)) && tonumber(split("/", network)[1]) >= 16])
    error_message = "Each network must be in CIDR form, and no larger than a /16."
  }
}

variable "kubernetes_admins" {
  description = "ARNs of IAM roles that administer the cluster."
  type        = set(string)

  validation {
    condition     = length(var.kubernetes_admins) > 0 && alltrue([for arn in var.kubernetes_admins : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/", arn))])
    error_message = "Name at least one role as arn:aws:iam::ACCOUNT:role/NAME."
  }
}

variable "kubernetes_namespace" {
  description = "Namespace of Linnet in the cluster."
  type        = string
  default     = "linnet"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.kubernetes_namespace))
    error_message = "The namespace must have 1 to 63 lowercase letters, digits and hyphens."
  }
}

variable "database_version" {
  description = "Major version of PostgreSQL. A higher one upgrades the database in the next maintenance window."
  type        = string
  default     = "17"

  validation {
    condition     = contains(["15", "16", "17", "18"], var.database_version)
    error_message = "The version must be 15, 16, 17 or 18, without a minor version."
  }
}

variable "database_class" {
  description = "Class of the primary and its standby."
  type        = string
  default     = "db.m7g.large"

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.database_class))
    error_message = "The class must be a name such as db.m7g.large."
  }
}

variable "database_replica" {
  description = "Whether there is a read replica, for `postgres.replica_url`."
  type        = bool
  default     = false
}

variable "database_replica_class" {
  description = "Class of the read replica."
  type        = string
  default     = "db.m7g.large"

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.database_replica_class))
    error_message = "The class must be a name such as db.m7g.large."
  }
}

variable "database_storage" {
  description = "Storage of the database and the size up to which it grows by itself, in GiB."
  type        = object({ initial = number, maximum = number })
  default     = { initial = 100, maximum = 500 }

  validation {
    condition     = var.database_storage.initial >= 20 && var.database_storage.maximum >= var.database_storage.initial * 1.1
    error_message = "The initial size must be at least 20 GiB, and the maximum at least 10 % above it."
  }
}

variable "database_backup_days" {
  description = "Days back to which a point-in-time recovery reaches."
  type        = number
  default     = 14

  validation {
    condition     = var.database_backup_days >= 7 && var.database_backup_days <= 35
    error_message = "The number of days must be from 7 to 35."
  }
}

variable "password_version" {
  description = "Version of the passwords of PostgreSQL and Redis. A higher number makes new ones."
  type        = number
  default     = 1

  validation {
    condition     = var.password_version >= 1 && floor(var.password_version) == var.password_version
    error_message = "The version must be a whole number from 1."
  }
}

variable "cache_node_type" {
  description = "Type of the three Redis nodes."
  type        = string
  default     = "cache.m7g.large"

  validation {
    condition     = can(regex("^cache\\.[a-z0-9]+\\.[a-z0-9]+$", var.cache_node_type))
    error_message = "The type must be a name such as cache.m7g.large."
  }
}

variable "backup_retention_days" {
  description = "Days for which no user can delete or overwrite an object in the bucket for backups."
  type        = number
  default     = 35

  validation {
    condition     = var.backup_retention_days >= 1 && var.backup_retention_days <= 365
    error_message = "The number of days must be from 1 to 365."
  }
}

variable "log_retention_days" {
  description = "Days for which CloudWatch keeps flow logs and the logs of the cluster, PostgreSQL and Redis."
  type        = number
  default     = 365

  validation {
    condition     = contains([90, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "The number of days must be 90, 180, 365, 400, 545 or 731."
  }
}

variable "github_repository" {
  description = "Repository whose workflows may deploy, as OWNER/NAME; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository == null ? true : can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "The repository must be OWNER/NAME."
  }
}

variable "github_oidc_provider_arn" {
  description = "ARN of the account's identity provider for GitHub, if there is one: an account has one at most. Null creates it."
  type        = string
  default     = null

  validation {
    condition     = var.github_oidc_provider_arn == null ? true : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/token\\.actions\\.githubusercontent\\.com$", var.github_oidc_provider_arn))
    error_message = "The ARN must end with :oidc-provider/token.actions.githubusercontent.com."
  }
}

variable "github_environment" {
  description = "Environment of GitHub in which a job must run to deploy."
  type        = string
  default     = "production"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+$", var.github_environment))
    error_message = "The environment must have letters, digits, hyphens and underscores only."
  }
}

variable "deletion_protection" {
  description = "Whether the cluster, the database and its replica refuse to be deleted. Apply false before a destroy."
  type        = bool
  default     = true
}
