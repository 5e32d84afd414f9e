#!/usr/bin/env bash
# What each host of a TPU pod does at every boot, as root; launch/tpu_pod.sh
# puts it after the values of BUCKET, NAME, SHARE and the flags of the training.
set -eu -o pipefail
: "${BUCKET:?}" "${NAME:?}" "${SHARE=}"

place=gs://$BUCKET/jaxgen/$NAME
home=/opt/jaxgen
again() { until "$@"; do sleep 10; done; } # at boot others lock apt, too

if [ -n "$SHARE" ]; then
  mkdir -p /share
  command -v mount.nfs >/dev/null || again apt-get install -y -q nfs-common
  mountpoint -q /share || again mount -t nfs "$SHARE" /share
fi

# The code, and a Python that is new enough: the image's own may not be.
mkdir -p "$home"
again gcloud storage cp "$place/code.tar.gz" /tmp/jaxgen.tar.gz
tar -xzf /tmp/jaxgen.tar.gz -C "$home"
cd "$home"
if ! command -v uv >/dev/null; then
  again curl -fsSL https://astral.sh/uv/install.sh -o /tmp/uv.sh
  UV_INSTALL_DIR=/usr/local/bin again sh /tmp/uv.sh
fi
export HOME=/root
again uv venv --allow-existing --python 3.12 .venv
again uv pip install --python .venv/bin/python ".[tpu]"

# A service: SIGTERM reaches it before the network goes, and it has time to
# save. Of compiled programs jax writes only what process 0 compiled: shared,
# or the other hosts compile at every start.
{
  echo "export HOME=/root PYTHON=$home/.venv/bin/python"
  echo "export JAX_COMPILATION_CACHE_DIR=gs://$BUCKET/jaxgen-xla"
  if [ -n "$SHARE" ]; then echo "export JAXGEN_DATA=/share/jaxgen-data"; fi
  printf 'bash launch/machine.sh'
  printf ' %q' "$@"
  printf '\necho "$?" | gcloud storage cp - %q\n' "$place/ended"
} >run.sh
systemctl reset-failed jaxgen 2>/dev/null || true
systemd-run --unit=jaxgen --working-directory="$home" \
  --property=After="network-online.target remote-fs.target" \
  --property=TimeoutStopSec=300 bash run.sh
