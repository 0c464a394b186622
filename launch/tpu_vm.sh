#!/usr/bin/env bash
# A job on the workers of a Cloud TPU VM, by gcloud.  docs/pod.md walks it.
#
#   launch/tpu_vm.sh create --name=N --zone=Z --accelerator=v4-256
#     [--spot | --reserved] [--runtime=VERSION] [--network=NETWORK]
#   launch/tpu_vm.sh setup --name=N --zone=Z [--nfs=SERVER:/EXPORT]
#     [--mount=/mnt/share] [--extras=tensorboard] [--ref=HEAD]
#   launch/tpu_vm.sh run --name=N --zone=Z -- --config=FILE --workdir=FOLDER
#   launch/tpu_vm.sh status --name=N --zone=Z
#   launch/tpu_vm.sh logs --name=N --zone=Z [--worker=0]
#   launch/tpu_vm.sh stop --name=N --zone=Z
#   launch/tpu_vm.sh delete --name=N --zone=Z
#
#   create  queues a request for the slice; status says when it is ACTIVE
#   setup   copies a commit of this checkout to all workers, mounts the shared
#           folder that --nfs exports, and installs jax and the code
#   run     starts `python -m vdm_jax.main --distributed` with what follows --
#           on all workers; it outlives the connection, and is run again after
#           a kill or exit code 75 (launch/supervise.sh)
#   logs    follows the log of a worker
#   stop    has the job save and leave; the same run goes on
#   delete  gives the slice and its disks back
#
# Each takes --project=PROJECT too, and --dry-run, which prints the commands
# and runs none.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
job_of=run  # the command that takes what stands behind --
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"

name='' zone='' project='' accelerator='' runtime='' network='' spot=''
reserved='' nfs='' mount=/mnt/share extras=tensorboard ref=HEAD worker=0

# Runs a command of gcloud on this slice: tpu GROUP VERB [ARGUMENTS]
tpu() {
  run gcloud compute tpus "$@" --zone="$zone" ${project:+--project="$project"}
}

# Runs a command line on workers: on WORKER 'COMMAND LINE'
on() { tpu tpu-vm ssh "$name" --worker="$1" --command="$2"; }

create() {
  need accelerator
  [[ ! $spot || ! $reserved ]] ||
    fail '--spot and --reserved exclude each other: leave one out.'
  case $accelerator in
    v4-*) : "${runtime:=tpu-ubuntu2204-base}" ;;
    v5litepod-*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
    v5p-*) : "${runtime:=v2-alpha-tpuv5}" ;;
    v6e-*) : "${runtime:=v2-alpha-tpuv6e}" ;;
    *) [[ $runtime ]] ||
      fail "--accelerator=$accelerator has no known runtime: give v4-N," \
        'v5litepod-N, v5p-N or v6e-N, or its --runtime=VERSION.' ;;
  esac
  tpu queued-resources create "$name" --node-id="$name" \
    --accelerator-type="$accelerator" --runtime-version="$runtime" \
    ${spot:+--spot} ${reserved:+--reserved} ${network:+--network="$network"}
  echo 'launch: python -m vdm_jax.main --mode=plan says what a job takes of' \
    'such chips (docs/plan.md).' >&2
}

# The commit travels by scp, so a private repository needs no key out there.
setup() {
  [[ $mount == /* ]] || fail "--mount=$mount is not absolute: begin with /."
  local archive=$HOME/.cache/vdm_jax/$name.tar.gz
  run mkdir -p "$(dirname "$archive")"
  run git -C "$root" archive --output="$archive" "$ref"
  tpu tpu-vm scp "$archive" "$name:vdm_jax.tar.gz" --worker=all
  local line='rm -rf vdm_jax.new && mkdir vdm_jax.new'
  line+=' && tar -xzf vdm_jax.tar.gz -C vdm_jax.new && '
  line+=$(quoted bash vdm_jax.new/launch/worker.sh setup "$extras" \
    ${nfs:+"$nfs" "$mount"})
  on all "$line"
}

start() {
  need_job
  on all "$(quoted bash vdm_jax/launch/worker.sh start "${job[@]}")"
}

status() {
  tpu queued-resources describe "$name" --format='value(state.state)'
  on all 'bash vdm_jax/launch/worker.sh status'
}

options='' switches=''
case ${1:-} in
  create) options='accelerator runtime network' switches='spot reserved' ;;
  setup) options='nfs mount extras ref' ;;
  logs) options='worker' ;;
  run | status | stop | delete) ;;
  --help | -h | '') usage && exit ;;
  *) fail "'$1' is not a command: give create, setup, run, status, logs, stop" \
    'or delete; --help shows their options.' ;;
esac
command=$1
parse "name zone project${options:+ $options}" "$switches" "${@:2}"
need name zone
need_tool gcloud 'the Google Cloud CLI (https://cloud.google.com/sdk)'
case $command in
  create | setup | status) "$command" ;;
  run) start ;;
  logs) on "$worker" 'tail -n 100 -F vdm_jax_run/log' ;;
  stop) on all 'bash vdm_jax/launch/worker.sh stop' ;;
  delete) tpu queued-resources delete "$name" --force ;;
esac
