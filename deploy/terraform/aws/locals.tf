data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  tags = merge(var.tags, { Application = var.name, ManagedBy = "terraform" })

  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  # Named, not listed: a list of the available zones changes when AWS adds one, and would move the subnets.
  zones = [for letter in var.zones : "${var.region}${letter}"]

  # Zone to number of the network.
  zone_index = { for index, zone in local.zones : zone => index }
}
