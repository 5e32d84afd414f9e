#!/usr/bin/env bash
# One training as several processes on this machine, each with CPU devices of
# its own: how a pod would run it, to try a config and to do it harm.
#
#   launch/local.sh --processes 2 --devices 4 \
#     --config configs/digits_diffusion.py:debug --workdir W
#
# --processes and --devices (of each process) come first. Every process has
# the loop of launch/machine.sh around it, and its settings. When one ends for
# good, and not with 0, the others are told to stop; its status is ours.
# They meet on $PORT, by default one that is free.
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

free="import socket; s = socket.create_server(('127.0.0.1', 0)); \
print(s.getsockname()[1])"
port=${PORT:-$("${PYTHON:-python}" -c "$free")} || exit 2
flag=--xla_force_host_platform_device_count=$devices
machine=$(dirname -- "${BASH_SOURCE[0]}")/machine.sh

loops=()
trap : TERM INT # they end `wait -n` below
for ((i = 0; i < processes; i++)); do
  command=(env JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:-} $flag"
    "JAXGEN_COORDINATOR=127.0.0.1:$port" "JAXGEN_PROCESSES=$processes"
    "JAXGEN_PROCESS_ID=$i" bash "$machine" "$@")
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "${command[@]}"
    echo
  else
    "${command[@]}" &
    loops+=("$!")
  fi
done
if [ -n "${DRY_RUN:-}" ]; then exit; fi

status=0
while wait -n || ! status=$?; do :; done # until one fails, or (127) none is left
kill -TERM "${loops[@]}" 2>/dev/null
if ((status == 127)); then status=0; fi
for loop in "${loops[@]}"; do
  wait "$loop"
  ended=$?
  while kill -0 "$loop" 2>/dev/null; do
    wait "$loop"
    ended=$?
  done
  if ((status == 0)); then status=$ended; fi
done
exit "$status"
