#!/usr/bin/env bash
# Trains on one machine with all its accelerators, and starts again after a
# crash: the same command goes on from the last checkpoint, to the same bits.
#
#   launch/machine.sh --config configs/digits_diffusion.py --workdir W
#
# Ctrl-C ends it at once, SIGTERM after a checkpoint. The statuses 0, 2, 3 and
# 130 are final (README.md says what they mean). After anything else it waits
# $WAIT seconds (10) and starts again, up to $TRIES times in a row (20): the
# count begins anew after a life of $STEADY seconds (600).
#
# Hosts of a pod and launch/local.sh run it, too: once for each process.
# DRY_RUN=1 prints what it would run. PYTHON names another python.
set -u

python=${PYTHON:-python}
who=${JAXGEN_PROCESS_ID:+process $JAXGEN_PROCESS_ID }
child=
stopping=
trap 'stopping=143; [ -n "$child" ] && kill -TERM "$child"' TERM
trap 'stopping=130; [ -n "$child" ] && kill -INT "$child"' INT

if [ -n "${DRY_RUN:-}" ]; then
  printf '%q ' "$python" -m jaxgen train "$@"
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
  "$python" -m jaxgen train "$@" &
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
