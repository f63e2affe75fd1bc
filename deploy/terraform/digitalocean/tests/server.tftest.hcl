# `make test-terraform` runs this without an account: only the provider's schema is real.
mock_provider "digitalocean" {
  override_during = plan

  mock_resource "digitalocean_reserved_ip" {
    defaults = { ip_address = "203.0.113.7" }
  }

  mock_resource "digitalocean_droplet" {
    defaults = { id = "4711" }
  }
}

variables {
  domain          = "go.example.com"
  dns_zone        = "example.com"
  ssh_keys        = ["3b:16:e4:bf:8b:00:8b:b8:59:8c:a9:d3:f0:19:fa:45"]
  ssh_sources     = ["203.0.113.9/32"]
  backup_bucket   = "example-linnet-backups"
  cloud_init_file = "tests/cloud-init.yaml"
}

run "a_server_with_backups" {
  command = plan

  assert {
    condition     = digitalocean_record.address[0].name == "go" && digitalocean_record.address[0].value == "203.0.113.7"
    error_message = "The domain must lead to the reserved address."
  }

  assert {
    condition     = output.backup_repository == "s3://example-linnet-backups/linnet?endpoint=ams3.digitaloceanspaces.com&region=ams3"
    error_message = "The repository must be in the form that --backup takes."
  }

  assert {
    condition     = output.dns_record == null
    error_message = "A managed zone needs no record by hand."
  }

  assert {
    condition     = yamldecode(digitalocean_droplet.server.user_data).runcmd[0][1] == "/usr/local/sbin/linnet-init"
    error_message = "The server must run the script of deploy.sh."
  }

  assert {
    condition     = startswith(digitalocean_droplet.server.user_data, "#cloud-config\n")
    error_message = "Without this line cloud-init ignores the file."
  }

  assert {
    condition     = yamldecode(digitalocean_droplet.server.user_data).mounts[0][1] == "/var/lib/docker"
    error_message = "Docker's data must be on the volume."
  }

  assert {
    condition = alltrue([for rule in digitalocean_firewall.server.inbound_rule :
    rule.protocol == "tcp" ? contains(["22", "80", "443"], rule.port_range) : true])
    error_message = "Only SSH and HTTP may be open."
  }

  assert {
    condition = [for rule in digitalocean_firewall.server.inbound_rule :
    rule.source_addresses if rule.port_range == "22"][0] == toset(["203.0.113.9/32"])
    error_message = "SSH must be open to the named networks only."
  }
}

run "a_domain_at_another_provider_is_an_output" {
  command = plan

  variables {
    dns_zone = null
  }

  assert {
    condition     = length(digitalocean_record.address) == 0 && output.dns_record == "go.example.com. 300 IN A 203.0.113.7"
    error_message = "The record must be an output instead."
  }
}

run "a_cloud_init_file_of_another_domain_is_refused" {
  command = plan

  variables {
    domain = "links.example.com"
  }

  expect_failures = [digitalocean_droplet.server]
}

run "a_cloud_init_file_without_the_bucket_is_refused" {
  command = plan

  variables {
    backup_bucket = "another-bucket"
  }

  expect_failures = [digitalocean_droplet.server]
}

run "a_domain_outside_the_zone_is_refused" {
  command = plan

  variables {
    dns_zone = "example.org"
  }

  expect_failures = [var.dns_zone]
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    name        = "Linnet"
    region      = "Frankfurt"
    ssh_keys    = []
    ssh_sources = ["203.0.113.9"]
    volume_size = 1.5
    vpc_cidr    = "10.201.4.0/24"
  }

  expect_failures = [var.name, var.region, var.ssh_keys, var.ssh_sources, var.volume_size, var.vpc_cidr]
}
