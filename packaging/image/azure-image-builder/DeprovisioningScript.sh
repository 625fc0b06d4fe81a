#!/bin/sh
# Azure Image Builder, on the machine: the template's last customizer puts this at /tmp/DeprovisioningScript.sh.
#
# Image Builder runs whatever lies there after all customizers, in place of its own
# `/usr/sbin/waagent -force -deprovision+user && export HISTSIZE=0 && sync`; then it generalizes the machine, which runs
# nothing in it any more. So this is the only place after the deprovisioning, and nothing can be put into the disk from
# outside later: the signature has to be asked for here, from a key that never leaves its vault.
#
# NAME, VERSION and SIGN are in /tmp/driftmark.env. SIGN is a command that reads the bytes to be signed and writes the
# signature: `sh /tmp/key-vault-sign`, which lies beside this.
set -eu
. /tmp/driftmark.env

# The name server goes with the deprovisioning: what the vault's name means is asked before.
if [ -n "${VAULT:-}" ]; then
  VAULT_ADDRESS=$(getent ahostsv4 "$VAULT" | awk '{ print $1; exit }')
  export VAULT VAULT_ADDRESS VAULT_KEY
fi
/usr/sbin/waagent -force -deprovision+user
sh /tmp/clean /
export HISTSIZE=0

cd /usr/lib/driftmark
driftmark-agent bake --root / --name "$NAME" --version "$VERSION" --builder azure-image-builder --output .
driftmark-agent sign image.manifest --pae | $SIGN >/tmp/signature
driftmark-agent sign image.manifest --attach /tmp/signature
sync
