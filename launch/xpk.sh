#!/usr/bin/env bash
# A job on a TPU slice of a GKE cluster, by xpk.  docs/pod.md says more.
#
#   launch/xpk.sh build --image=IMAGE
#   launch/xpk.sh submit --name=N --cluster=C --image=IMAGE --device=v4-256
#     --storage=S [--max-restarts=50] [--priority=medium]
#     -- --config=FILE --workdir=FOLDER
#   launch/xpk.sh logs --name=N
#   launch/xpk.sh delete --name=N --cluster=C
#
#   build   builds the image of launch/Dockerfile and pushes it
#   submit  runs `python -m vdm_jax.main --distributed` with what follows -- on
#           all hosts of the slice; --storage is a shared folder attached by
#           `xpk storage attach`, below which the workdir lies
#   logs    follows the log of the first host
#   delete  has the job save and leave; the same submit goes on
#
# submit and delete take --project=PROJECT and --zone=ZONE too, all --dry-run,
# which prints the commands and runs none.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
job_of=submit  # the command that takes what stands behind --
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"

name='' cluster='' image='' device='' storage='' project='' zone=''
max_restarts=50 priority=medium

# Runs a command of xpk on this workload: workload VERB [ARGUMENTS]
workload() {
  run xpk workload "$1" --cluster="$cluster" --workload="$name" "${@:2}" \
    ${project:+--project="$project"} ${zone:+--zone="$zone"}
}

build() {
  need image
  need_tool docker 'Docker'
  run docker build --file="$root/launch/Dockerfile" --tag="$image" "$root"
  run docker push "$image"
}

submit() {
  need name cluster image device storage
  need_job
  need_tool xpk 'it by: pip install xpk'
  # exec: xpk's SIGTERM then reaches the job.  xpk itself starts all hosts again
  # after 127 and more.  Kubernetes takes $$ for $, and $(NAME) for a variable.
  local line
  line="exec $(quoted python -m vdm_jax.main --distributed "${job[@]}")"
  workload create --tpu-type="$device" --docker-image="$image" \
    --storage="$storage" --priority="$priority" \
    --max-restarts="$max_restarts" --restart-on-exit-codes=75 \
    --termination-grace-period-seconds=600 --command="${line//\$/\$\$}"
}

logs() {
  need name
  need_tool kubectl 'it by: gcloud components install kubectl'
  local first=batch.kubernetes.io/job-completion-index=0
  run kubectl logs --follow --tail=100 --container=jax-tpu \
    --selector="xpk.google.com/workload=$name,$first"
}

delete() {
  need name cluster
  need_tool xpk 'it by: pip install xpk'
  workload delete
}

case ${1:-} in
  build) options='image' ;;
  submit)
    options='name cluster project zone image device storage max-restarts'
    options+=' priority'
    ;;
  logs) options='name' ;;
  delete) options='name cluster project zone' ;;
  --help | -h | '') usage && exit ;;
  *) fail "'$1' is not a command: give build, submit, logs or delete; --help" \
    'shows their options.' ;;
esac
command=$1
parse "$options" '' "${@:2}"
"$command"
