# The file of `deploy/deploy.sh cloud-init`, with the volume mounted at /var/lib/docker before Docker is installed.
locals {
  cloud_init_text = file(var.cloud_init_file)
  cloud_init      = yamldecode(local.cloud_init_text)

  volume_name   = "${var.name}-docker"
  volume_device = "/dev/disk/by-id/scsi-0DO_Volume_${local.volume_name}"

  # Without the volume, Docker would start empty and Linnet with an empty database.
  docker_needs_volume = {
    path        = "/etc/systemd/system/docker.service.d/10-linnet-volume.conf"
    permissions = "0644"
    content     = "[Unit]\nRequiresMountsFor=/var/lib/docker\nConditionPathIsMountPoint=/var/lib/docker\n"
  }

  user_data = "#cloud-config\n${yamlencode(merge(local.cloud_init, {
    mounts      = [[local.volume_device, "/var/lib/docker", "ext4", "defaults,discard,nofail,x-systemd.growfs", "0", "2"]]
    write_files = concat(local.cloud_init.write_files, [local.docker_needs_volume])
  }))}"
}
