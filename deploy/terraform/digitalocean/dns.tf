locals {
  in_zone     = var.dns_zone != null
  record_name = var.dns_zone == null || var.domain == var.dns_zone ? "@" : trimsuffix(var.domain, ".${var.dns_zone}")
}

# The zone exists: it also has records of others.
data "digitalocean_domain" "zone" {
  count = local.in_zone ? 1 : 0
  name  = var.dns_zone
}

resource "digitalocean_record" "address" {
  count  = local.in_zone ? 1 : 0
  domain = data.digitalocean_domain.zone[0].id
  type   = "A"
  name   = local.record_name
  value  = digitalocean_reserved_ip.server.ip_address
  ttl    = 300
}

# No other CA may issue a certificate for the domain.
resource "digitalocean_record" "caa" {
  count  = local.in_zone ? 1 : 0
  domain = data.digitalocean_domain.zone[0].id
  type   = "CAA"
  name   = local.record_name
  value  = "letsencrypt.org."
  flags  = 0
  tag    = "issue"
  ttl    = 3600
}
