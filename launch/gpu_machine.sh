#!/usr/bin/env bash
# Trains on one machine with all its accelerators, and starts again after a
# crash: the same command goes on from the last checkpoint, to the same bits.
#
#   launch/gpu_machine.sh --config configs/digits_diffusion.py --workdir W
#
# Ctrl-C ends it at once, SIGTERM after a checkpoint. Status 2 (a mistake in
# what was asked for) and 3 (diverged) are final; after anything else it waits
# and tries again, up to $TRIES times in a row (20).
set -u

tries=${TRIES:-20}
wait_s=${WAIT:-10}
child=
stopping=
trap 'stopping=1; [ -n "$child" ] && kill -TERM "$child"' TERM
trap 'stopping=1; [ -n "$child" ] && kill -INT "$child"' INT

for ((life = 1; life <= tries; life++)); do
  set -m  # a group of its own: Ctrl-C reaches it through us, once
  ${PYTHON:-python} -m jaxgen train "$@" &
  child=$!
  set +m
  wait "$child"
  status=$?
  while kill -0 "$child" 2>/dev/null; do  # a signal ended `wait`, not the child
    wait "$child"
    status=$?
  done
  child=
  if [ -n "$stopping" ]; then exit "$status"; fi
  case $status in
    0 | 2 | 3 | 130) exit "$status" ;;
  esac
  echo "ended with status $status; life $((life + 1)) in $wait_s s" >&2
  sleep "$wait_s"
done
echo "gave up after $tries lives" >&2
exit "$status"
