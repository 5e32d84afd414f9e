#!/usr/bin/env bash
# What each host of a TPU pod does at every boot, as root; launch/tpu_pod.sh
# puts it after the values of BUCKET, NAME, SHARE and the flags of the training.
set -eu -o pipefail
: "${BUCKET:?}" "${NAME:?}" "${SHARE:?}"

place=gs://$BUCKET/jaxgen/$NAME
home=/opt/jaxgen
again() { until "$@"; do sleep 10; done; } # at boot others lock apt, too

# The folder that all hosts see. Orbax asks what is there: no cached answers.
install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc
  local all=https://packages.cloud.google.com/apt
  curl -fsS "$all/doc/apt-key.gpg" -o "$key" &&
    echo "deb [signed-by=$key] $all gcsfuse-$(lsb_release -cs) main" \
      >/etc/apt/sources.list.d/gcsfuse.list &&
    apt-get update -q && apt-get install -y -q gcsfuse
}
mkdir -p /share
case $SHARE in
  gs://*)
    command -v gcsfuse >/dev/null || again install_gcsfuse
    mountpoint -q /share || again gcsfuse --implicit-dirs \
      --metadata-cache-ttl-secs=0 "${SHARE#gs://}" /share
    ;;
  *)
    command -v mount.nfs >/dev/null || again apt-get install -y -q nfs-common
    mountpoint -q /share || again mount -t nfs "$SHARE" /share
    ;;
esac

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
  echo "export JAX_COMPILATION_CACHE_DIR=/share/jaxgen-xla"
  echo "export JAXGEN_DATA=/share/jaxgen-data"
  printf 'bash launch/machine.sh'
  printf ' %q' "$@"
  printf '\necho "$?" | gcloud storage cp - %q\n' "$place/ended"
} >run.sh
systemctl reset-failed jaxgen 2>/dev/null || true
systemd-run --unit=jaxgen --working-directory="$home" \
  --property=After="network-online.target remote-fs.target" \
  --property=TimeoutStopSec=300 bash run.sh
