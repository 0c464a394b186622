#!/usr/bin/env bash
# Runs a command again for as long as the same command would go on.
#
#   bash launch/supervise.sh COMMAND [ARGUMENTS]
#
# It is run again after exit code 75 (a signal reached some host; all have
# saved) and after 128 and more (killed; what jax does to a process whose peer
# died is 134).  Every other code is the end: 0 finished, 1 and 2 would come
# back.  SIGTERM to this script is passed on, and then every code is the end.
#
# Five ends in a row, each within ten minutes, are also the end.  Ten seconds
# (VDM_JAX_PAUSE) lie between one run and the next.

set -uo pipefail

child='' told='' passed='' interrupted=''
trap 'told=1 interrupted=1; pass_on' TERM INT

# Once only: at a second signal the job would leave without saving.
pass_on() {
  [[ $told && $child && ! $passed ]] || return 0
  passed=1
  kill -TERM "$child" 2>/dev/null
}

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
  pass_on
  await
  code=$?
  child=''
  lasted=$((SECONDS - began))
  [[ ! $told ]] || break
  ((code == 75 || code >= 128)) || break
  if ((lasted < 600)); then ((++short)); else short=0; fi
  if ((short >= 5)); then
    say "exit code $code, five times in a row within ten minutes: giving up."
    break
  fi
  say "exit code $code after $lasted s: the same command again."
  sleep "${VDM_JAX_PAUSE:-10}" &
  wait $!
  [[ ! $told ]] || {
    kill $! 2>/dev/null  # it holds what this script does, e.g. a lock
    break
  }
done
say "exit code $code."
exit "$code"
