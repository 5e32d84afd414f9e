#!/usr/bin/env bash
# Trains on one machine with all its accelerators, and starts again after a
# crash: the same command goes on from the last checkpoint, to the same bits.
#
#   launch/machine.sh --config configs/digits_diffusion.py --workdir W
#   launch/machine.sh --processes 8 --config C --workdir W
#   VERB=compare launch/machine.sh --configs a.py,b.py --out O
#
# One process has all GPUs. With --processes, which comes first, process i has
# the i-th alone, of those that CUDA_VISIBLE_DEVICES lets through: take as many
# as there are. They meet on $PORT, by default one that is free. When one ends
# for good, and not with 0, the others are told to stop; its status is ours.
#
# Ctrl-C ends it at once, SIGTERM after a checkpoint. The statuses 0, 2, 3 and
# 130 are final (README.md says what they mean). After anything else it waits
# $WAIT seconds (10) and starts again, up to $TRIES times in a row (20): the
# count begins anew after a life of $STEADY seconds (600).
#
# Hosts of a pod and launch/local.sh run it, too. DRY_RUN=1 prints what it would
# run. PYTHON names another python.
set -u

processes=
case ${1:-} in
  --processes=*) processes=${1#*=} && shift ;;
  --processes) processes=${2:-0} && shift "$(($# > 1 ? 2 : 1))" ;;
esac
if [[ -n $processes && ! $processes =~ ^[1-9][0-9]*$ ]]; then
  echo "--processes wants a number from 1" >&2
  exit 2
fi

python=${PYTHON:-python}
if [ "${processes:-1}" != 1 ]; then # each in a loop of its own, below
  free="import socket; s = socket.create_server(('127.0.0.1', 0)); \
print(s.getsockname()[1])"
  port=${PORT:-$("$python" -c "$free")} || exit 2
  loops=()
  trap : TERM INT # they end `wait -n` below
  for ((i = 0; i < processes; i++)); do
    command=(env "JAXGEN_COORDINATOR=127.0.0.1:$port" "JAXGEN_PROCESSES=$processes"
      "JAXGEN_PROCESS_ID=$i" "JAX_LOCAL_DEVICE_IDS=$i" bash "${BASH_SOURCE[0]}" "$@")
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
fi

who=${JAXGEN_PROCESS_ID:+process $JAXGEN_PROCESS_ID }
child=
stopping=
trap 'stopping=143; [ -n "$child" ] && kill -TERM "$child"' TERM
trap 'stopping=130; [ -n "$child" ] && kill -INT "$child"' INT

if [ -n "${DRY_RUN:-}" ]; then
  printf '%q ' "$python" -m jaxgen "${VERB:-train}" "$@"
  echo
  exit
fi
if ! command -v "$python" >/dev/null; then
  echo "there is no $python: activate the environment or set PYTHON" >&2
  exit 2
fi

life=1
while :; do
  begun=$SECONDS
  set -m # a group of its own: Ctrl-C reaches it through us, once
  "$python" -m jaxgen "${VERB:-train}" "$@" &
  child=$!
  set +m
  if [ -n "$stopping" ]; then kill -TERM "$child"; fi # while it was started
  wait "$child"
  status=$?
  while kill -0 "$child" 2>/dev/null; do # a signal ended `wait`, not the child
    wait "$child"
    status=$?
  done
  child=
  if [ -n "$stopping" ]; then exit "$status"; fi
  case $status in
    0 | 2 | 3 | 130) exit "$status" ;;
  esac
  if ((SECONDS - begun >= ${STEADY:-600})); then life=1; fi
  if ((life >= ${TRIES:-20})); then
    echo "${who}gave up after $life lives, the last with status $status" >&2
    exit "$status"
  fi
  life=$((life + 1))
  echo "${who}ended with status $status; life $life in ${WAIT:-10} s" >&2
  sleep "${WAIT:-10}" &
  wait "$!" # so that a signal is heard at once
  if [ -n "$stopping" ]; then
    kill "$!" 2>/dev/null
    exit "$stopping"
  fi
done
