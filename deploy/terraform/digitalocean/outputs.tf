output "address" {
  description = "Reserved address of the server: the domain's A record."
  value       = digitalocean_reserved_ip.server.ip_address
}

output "ssh" {
  description = "Login of the operator."
  value       = "linnet@${digitalocean_reserved_ip.server.ip_address}"
}

output "backup_repository" {
  description = "Value of --backup for deploy.sh; null without a bucket."
  value       = local.backup_repository
}

output "dns_record" {
  description = "Record to add at the domain's provider; null if this configuration manages the zone."
  value       = local.in_zone ? null : "${var.domain}. 300 IN A ${digitalocean_reserved_ip.server.ip_address}"
}
