#!/usr/bin/env bash
# Runs a command again for as long as the same command would go on.
#
#   bash launch/supervise.sh [--stopped=CODE] COMMAND [ARGUMENTS]
#
# It is run again after exit code 75 (a signal reached some host; all have
# saved) and after 128 and more (killed; what jax does to a process whose peer
# died is 134).  Every other code is the end: 0 finished, 1 and 2 would come
# back.  SIGTERM to this script is passed on, and what the command then ends
# with is the end too, 75 as CODE if that is given.
#
# Five ends in a row, each within ten minutes, are also the end.  Ten seconds
# (VDM_JAX_PAUSE) lie between one run and the next.

set -uo pipefail

stopped=75
if [[ ${1:-} == --stopped=* ]]; then
  stopped=${1#*=}
  shift
fi

child='' told='' interrupted=''
# shellcheck disable=SC2329  # the trap calls it
pass_on() {
  told=1 interrupted=1
  [[ ! $child ]] || kill -TERM "$child" 2>/dev/null
}
trap pass_on TERM INT

say() { printf 'launch: %s\n' "$*" >&2; }

# Waits for the child; a signal that is passed on does not end the wait.
await() {
  local code
  while :; do
    interrupted=''
    wait "$child"
    code=$?
    [[ $interrupted ]] || return "$code"
  done
}

short=0
while :; do
  began=$SECONDS
  "$@" &
  child=$!
  [[ ! $told ]] || kill -TERM "$child" 2>/dev/null
  await
  code=$?
  child=''
  lasted=$((SECONDS - began))
  if [[ $told ]]; then
    ((code != 75)) || code=$stopped
    break
  fi
  ((code == 75 || code >= 128)) || break
  ((lasted < 600)) || short=0
  if ((++short >= 5)); then
    say "exit code $code, five times within ten minutes: giving up."
    break
  fi
  say "exit code $code after $lasted s: the same command again."
  sleep "${VDM_JAX_PAUSE:-10}" &
  wait $!
  [[ ! $told ]] || break
done
say "exit code $code."
exit "$code"
