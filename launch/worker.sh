#!/usr/bin/env bash
# What launch/tpu_vm.sh asks of each worker of a TPU VM.
#
#   bash vdm_jax/launch/worker.sh setup EXTRAS [SERVER:/EXPORT FOLDER]
#   bash vdm_jax/launch/worker.sh start [JOB'S ARGUMENTS]
#   bash vdm_jax/launch/worker.sh stop
#   bash vdm_jax/launch/worker.sh status
#
# The code is ~/vdm_jax, its environment ~/vdm_jax_env; ~/vdm_jax_run has the
# log and, for as long as a job runs, a lock.

set -euo pipefail
code=~/vdm_jax env=~/vdm_jax_env state=~/vdm_jax_run
mkdir -p "$state"

fail() {
  printf 'error: %s: %s\n' "$HOSTNAME" "$*" >&2
  exit 2
}

idle() { flock --nonblock "$state/lock" true; }

# The images have Python 3.10, and 3.11 is needed: uv brings its own.
setup() {
  idle || fail 'a job runs here: stop it first.'
  if (($# > 1)); then
    command -v mount.nfs >/dev/null ||
      { sudo apt-get update -q && sudo apt-get install -qy nfs-common; }
    sudo mkdir -p "$3"
    # By 4.1 the locks of a VM that vanished expire; by 3 they stay.
    mountpoint -q "$3" || sudo mount -t nfs -o nfsvers=4.1,hard "$2" "$3"
    [[ -w $3 ]] || sudo chmod a+rwx "$3"
  fi
  export PATH=~/.local/bin:$PATH
  command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
  uv venv --allow-existing --python 3.12 "$env"
  rm -rf "$code"
  mv "$code.new" "$code"
  uv pip install --python "$env/bin/python" 'jax[tpu]' -e "${code}[$1]"
}

# Returns once the job no longer depends on the connection.
start() {
  idle || fail 'a job runs here already: stop it first, or follow its logs.'
  rm -f "$state/code" "$state/pid"
  setsid nohup bash "$code/launch/worker.sh" attend "$@" \
    >>"$state/log" 2>&1 </dev/null &
  for _ in {1..100}; do
    [[ ! -s $state/pid ]] || { echo "$HOSTNAME: started" && return; }
    sleep 0.1
  done
  fail 'the job has not started within ten seconds: see the log.'
}

attend() {
  exec 9>"$state/lock"
  flock --timeout 9 9 || fail 'a job runs here already.'
  cd "$code"
  export PATH=$env/bin:$PATH
  bash launch/supervise.sh python -m vdm_jax.main --distributed "$@" &
  echo $! >"$state/pid"
  local result=0
  wait $! || result=$?
  echo "$result" >"$state/code"
}

stop() {
  idle || kill -TERM "$(<"$state/pid")" 2>/dev/null || true  # just gone
  flock "$state/lock" true  # free once the job has saved and left
  status
}

status() {
  if idle; then
    echo "$HOSTNAME: stopped, exit code $(cat "$state/code" 2>/dev/null || echo none)"
  else
    echo "$HOSTNAME: running"
  fi
}

case ${1:-} in
  setup | start | attend | stop | status) "$@" ;;
  *) fail "'${1:-}' is not a command." ;;
esac
