#!/usr/bin/env bash
# Trains on TPU slices of a Kubernetes cluster (GKE) as a JobSet: fills in
# launch/jobset.yaml and sends it. The JobSet starts all pods again when one
# ends, but for statuses that starting again does not mend.
#
#   NAME=adm64 ACCELERATOR=tpu-v5-lite-podslice TOPOLOGY=16x16 \
#     IMAGE=REGION-docker.pkg.dev/P/R/jaxgen \
#     launch/gke.sh --config configs/adm_imagenet64.py --workdir gs://my-bucket/adm64
#
# NAME         of the JobSet: letters, digits, hyphens
# ACCELERATOR  tpu-v5-lite-podslice (v5e), tpu-v5p-slice, tpu-v6e-slice, ...
# TOPOLOGY     of a slice, as its node pool has it
# CHIPS        of a node (4)
# SLICES       how many, each on a node pool of its own (1)
# IMAGE        built from launch/Dockerfile
# CLAIM        if data are to be prepared once for all: a PersistentVolumeClaim,
#              ReadWriteMany, that is mounted at /share
#
# The pods' service account must list, read and write the bucket.
# Needs kubectl, node pools of that accelerator and topology, and the JobSet
# controller in the cluster (1.29 or later). Then:
#   kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME   what it says
#   kubectl delete jobset NAME                               ends it, saved
# Node pools cost as long as they are there.
# DRY_RUN=1 prints what it would send.
set -u -o pipefail

: "${NAME:?see the top of this file}" "${ACCELERATOR:?}" "${TOPOLOGY:?}"
: "${IMAGE:?}" "${CLAIM=}" "${SLICES:=1}" "${CHIPS:=4}"
place=/share
if [[ " $* " =~ \ --workdir[=\ ](gs://[a-z0-9._-]+)/ ]]; then
  place=${BASH_REMATCH[1]}
elif [[ -z $CLAIM || ! " $* " =~ \ --workdir[=\ ]/share/ ]]; then
  echo "--workdir must be gs://BUCKET/NAME, or with CLAIM in /share: what all hosts see" >&2
  exit 2
fi
for value in "$NAME" "$ACCELERATOR" "$TOPOLOGY" "${CLAIM:-none}" "$SLICES" "$CHIPS"; do
  if ! [[ $value =~ ^[a-z0-9.-]+$ ]]; then
    echo "$value: letters (a-z), digits, hyphens and dots alone" >&2
    exit 2
  fi
done
chips=1
for n in ${TOPOLOGY//x/ }; do chips=$((chips * n)); done
HOSTS=$((chips / CHIPS))
if ((HOSTS * CHIPS != chips || HOSTS == 0)); then
  echo "TOPOLOGY=$TOPOLOGY has $chips chips: not nodes of CHIPS=$CHIPS" >&2
  exit 2
fi

quote() { # as JSON, which is YAML
  if [[ $1 =~ [[:cntrl:]] ]]; then
    echo "no line breaks or tabs in arguments" >&2
    return 2
  fi
  # shellcheck disable=SC2016  # Kubernetes would fill in $(A); $$(A) is it
  printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/\$(/$$(/g')"
}
ARGS=
for arg in "$@"; do ARGS+=${ARGS:+, }$(quote "$arg") || exit; done
ARGS="[$ARGS]"
IMAGE=$(quote "$IMAGE") || exit
# shellcheck disable=SC2034  # read by its name, below
CACHE=$(quote "$place/jaxgen-xla") || exit

leave='^#'
if [ -z "$CLAIM" ]; then leave='^#|# of CLAIM$'; fi
yaml=$(grep -Ev "$leave" "$(dirname -- "${BASH_SOURCE[0]}")/jobset.yaml") || exit
for word in NAME ACCELERATOR TOPOLOGY CLAIM CACHE SLICES CHIPS HOSTS IMAGE ARGS; do
  yaml=${yaml//@$word@/"${!word}"}
done

if [ -n "${DRY_RUN:-}" ]; then
  echo "# kubectl apply -f - <<'EOF'"
  printf '%s\n' "$yaml"
else
  printf '%s\n' "$yaml" | kubectl apply -f -
fi
