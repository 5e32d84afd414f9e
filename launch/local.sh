#!/usr/bin/env bash
# One training as several processes on this machine, each with CPU devices of
# its own: how a pod would run it, to try a config and to do it harm.
#
#   launch/local.sh --processes 2 --devices 4 \
#     --config configs/digits_diffusion.py:debug --workdir W
#
# --processes and --devices (of each process) come first. The rest is done by
# launch/machine.sh, and so are its settings: VERB, PORT, TRIES, ...
# DRY_RUN=1 prints what it would run.
set -u

processes=2
devices=1
while :; do
  case ${1:-} in
    --processes=*) processes=${1#*=} ;;
    --devices=*) devices=${1#*=} ;;
    --processes) shift && processes=${1:-} ;;
    --devices) shift && devices=${1:-} ;;
    *) break ;;
  esac
  shift || break
done
if ! [[ $processes =~ ^[1-9][0-9]*$ && $devices =~ ^[1-9][0-9]*$ ]]; then
  echo "--processes and --devices want numbers from 1" >&2
  exit 2
fi

exec env JAX_PLATFORMS=cpu \
  "XLA_FLAGS=${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices" \
  bash "$(dirname -- "${BASH_SOURCE[0]}")/machine.sh" "--processes=$processes" "$@"
