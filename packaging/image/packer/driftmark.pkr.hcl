# The last part of an image's build, as Packer does it. Put its steps behind yours, in the same `build` block, with the
# source that you build on (amazon-ebs, azure-arm, googlecompute, qemu); here that is a machine that is there already.
#
#   packer build -var host=10.0.0.5 -var user=root -var version=2026.11.1 -var deb=driftmark-agent.deb .

variable "host" { type = string }
variable "port" { default = 22 }
variable "user" { default = "root" }
variable "ssh_key" { type = string }

variable "name" { default = "web" }
variable "version" { type = string }
variable "deb" { type = string }
variable "public" { default = "keys/driftmark.pub" }
variable "key" { default = "keys/driftmark.key" }
variable "output" { default = "out" }

source "null" "machine" {
  ssh_host             = var.host
  ssh_port             = var.port
  ssh_username         = var.user
  ssh_private_key_file = var.ssh_key
}

build {
  sources = ["source.null.machine"]

  provisioner "file" {
    source      = var.deb
    destination = "/tmp/driftmark-agent.deb"
  }
  provisioner "file" {
    source      = var.public
    destination = "/tmp/driftmark.pub"
  }
  provisioner "shell" {
    script          = "${path.root}/install"
    execute_command = "chmod +x {{ .Path }}; {{ .Vars }} sudo -E {{ .Path }}"
  }

  # Your own steps end here. Clean, bake, and nothing after it but the signature.
  provisioner "file" {
    source      = "${path.root}/../clean"
    destination = "/tmp/clean"
  }
  provisioner "shell" {
    inline = ["sudo sh /tmp/clean /", "rm /tmp/clean"]
  }
  provisioner "shell" {
    script           = "${path.root}/bake"
    environment_vars = ["NAME=${var.name}", "VERSION=${var.version}"]
    execute_command  = "chmod +x {{ .Path }}; {{ .Vars }} sudo -E {{ .Path }}"
  }
  provisioner "file" {
    direction   = "download"
    source      = "/usr/lib/driftmark/image.manifest"
    destination = "${var.output}/image.manifest"
  }
  provisioner "file" {
    direction   = "download"
    source      = "/usr/lib/driftmark/image.statement.json"
    destination = "${var.output}/image.statement.json"
  }
  # Where the pipeline runs, not on the machine. For a key vault or an HSM, see README.md.
  provisioner "shell-local" {
    inline = ["driftmark-agent sign ${var.output}/image.manifest --key ${var.key}"]
  }
  provisioner "file" {
    source      = "${var.output}/image.manifest.sig"
    destination = "/tmp/image.manifest.sig"
    generated   = true
  }
  provisioner "shell" {
    inline = ["sudo install -m 644 /tmp/image.manifest.sig /usr/lib/driftmark/image.manifest.sig"]
  }

  # What the image became: `driftmark-collector image add out/image.manifest --artifact out/packer-manifest.json`
  post-processor "manifest" {
    output      = "${var.output}/packer-manifest.json"
    custom_data = {
      "driftmark.name"    = var.name
      "driftmark.version" = var.version
    }
  }
}
