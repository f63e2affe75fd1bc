data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

# Local Zones and zones that the account has not opted into are left out.
data "aws_availability_zones" "available" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  tags = merge(var.tags, { Application = var.name, ManagedBy = "terraform" })

  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  zones     = slice(sort(data.aws_availability_zones.available.names), 0, 3)

  # Zone to index: resources keep their address when a region gets another zone at the end of the list.
  zone_index = { for index, zone in local.zones : zone => index }
}
