# In front of the server, besides its own rules (docs/DEPLOY.md, "What init does").
resource "digitalocean_firewall" "server" {
  name        = var.name
  droplet_ids = [digitalocean_droplet.server.id]

  inbound_rule {
    protocol         = "tcp"
    port_range       = "22"
    source_addresses = var.ssh_sources
  }

  # Visitors, and the CA that validates the certificate's order.
  dynamic "inbound_rule" {
    for_each = toset(["80", "443"])

    content {
      protocol         = "tcp"
      port_range       = inbound_rule.value
      source_addresses = ["0.0.0.0/0", "::/0"]
    }
  }

  inbound_rule {
    protocol         = "icmp"
    source_addresses = ["0.0.0.0/0", "::/0"]
  }

  dynamic "outbound_rule" {
    for_each = var.outbound_tcp_ports

    content {
      protocol              = "tcp"
      port_range            = tostring(outbound_rule.value)
      destination_addresses = ["0.0.0.0/0", "::/0"]
    }
  }

  # DNS and the clock.
  dynamic "outbound_rule" {
    for_each = toset(["53", "123"])

    content {
      protocol              = "udp"
      port_range            = outbound_rule.value
      destination_addresses = ["0.0.0.0/0", "::/0"]
    }
  }

  outbound_rule {
    protocol              = "icmp"
    destination_addresses = ["0.0.0.0/0", "::/0"]
  }
}
