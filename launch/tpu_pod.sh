#!/usr/bin/env bash
# Trains on a TPU slice of any size, or on several slices (multislice): asks
# Google Cloud for it, waits, and asks again whenever it is taken away, until
# the training has ended; then gives it back.
#
#   NAME=adm64 ZONE=us-west4-a TYPE=v5litepod-256 BUCKET=my-bucket \
#     launch/tpu_pod.sh --config configs/adm_imagenet64.py --workdir gs://my-bucket/adm64
#
# NAME     of the request and of its nodes: letters, digits, hyphens
# ZONE, TYPE  where, and what: v5litepod-N and v6e-N have N chips, v5p-2N has N
# SLICES   how many such slices (1)
# SPOT     1: cheaper, and may be taken away at any moment
# BUCKET   of Cloud Storage: the code goes there (what is committed), compiled
#          programs, and word that the training has ended; the hosts' service
#          account must list, read and write it
# SHARE    if data are to be prepared once for all: an NFS export such as
#          10.0.0.2:/vol1, which all hosts mount at /share; see README.md
# RUNTIME  image of the hosts (the one that Google names for TYPE)
# FLAGS    more flags for `gcloud compute tpus queued-resources create`, such
#          as "--reserved --network=mine"
#
# Needs gcloud, with an account and a project (gcloud auth login; gcloud config
# set project P). Run it from the checkout where it can stay (tmux): if it ends
# before the training does, the pod goes on and costs; the same command takes
# up the watch again. Of the hosts each restarts by itself what crashes.
# DRY_RUN=1 prints what it would run.
set -u -o pipefail

: "${NAME:?see the top of this file}" "${ZONE:?}" "${TYPE:?}" "${BUCKET:?}"
case "${SHARE:+share} $* " in
  *" --workdir gs://"* | *" --workdir=gs://"*) ;;
  share*" --workdir /share/"* | share*" --workdir=/share/"*) ;;
  *)
    echo "--workdir must be gs://BUCKET/NAME, or with SHARE in /share: what all hosts see" >&2
    exit 2
    ;;
esac
place=gs://$BUCKET/jaxgen/$NAME
case $TYPE in
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac
nodes=(--node-id="$NAME")
if ((${SLICES:-1} > 1)); then
  nodes=(--node-count="$SLICES" --node-prefix="$NAME")
fi
if [ -n "${SPOT:-}" ]; then nodes+=(--spot); fi
read -ra flags <<<"${FLAGS:-}"
queue=(gcloud compute tpus queued-resources)
files=$(mktemp -d) || exit
trap 'rm -rf "$files"' EXIT
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit

run() { # a command, or in a dry run its words
  if [ -z "${DRY_RUN:-}" ]; then
    "$@"
  else
    printf '%q ' "$@"
    echo
  fi
}

prepare() { # the code and what hosts do with it
  run git archive --format=tar.gz --output="$files/code.tar.gz" HEAD &&
    run gcloud storage cp "$files/code.tar.gz" "$place/code.tar.gz" || return
  {
    echo '#!/usr/bin/env bash'
    printf '%s=%q\n' BUCKET "$BUCKET" NAME "$NAME" SHARE "${SHARE:-}"
    printf 'set --'
    printf ' %q' "$@"
    echo
    cat launch/tpu_host.sh
  } >"$files/startup.sh"
  run gcloud storage rm "$place/ended" 2>/dev/null
  return 0
}

create() {
  run "${queue[@]}" create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
    --runtime-version="${RUNTIME:-$runtime}" "${nodes[@]}" \
    --metadata-from-file=startup-script="$files/startup.sh" \
    ${flags[@]+"${flags[@]}"}
}

delete() {
  run "${queue[@]}" delete "$NAME" --zone="$ZONE" --force --quiet
}

if [ -n "${DRY_RUN:-}" ]; then
  prepare "$@"
  create
  echo "# startup.sh:"
  cat "$files/startup.sh"
  exit
fi

trap 'echo "$NAME goes on; to end it: ${queue[*]} delete $NAME \
--zone=$ZONE --force" >&2; exit 130' INT
prepared=
before=
while :; do
  if status=$(gcloud storage cat "$place/ended" 2>/dev/null) && [ -n "$before" ]
  then
    echo "the training has ended with status $status" >&2
    delete
    exit "$status"
  fi
  if state=$("${queue[@]}" list --zone="$ZONE" --filter="name~/$NAME\$" \
    --format="value(state.state)"); then
    state=${state:-absent}
    if [ "$state" != "$before" ]; then echo "$(date +%T) $NAME: $state" >&2; fi
    before=$state
    case $state in
      absent)
        if [ -z "$prepared" ]; then prepare "$@" || exit 1; fi
        create || [ -n "$prepared" ] || exit 1
        prepared=1
        ;;
      SUSPENDED | FAILED) delete ;; # taken away, or not to be had
    esac
  fi
  sleep "${WAIT:-60}"
done
