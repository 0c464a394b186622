#!/usr/bin/env bash
# A job on GPU nodes, by SLURM.  docs/pod.md says more.
#
#   launch/slurm.sh submit --nodes=2 --gpus=8 --time=24:00:00 [--name=vdm_jax]
#     [--cpus=8] [--partition=P] [--account=A]
#     -- --config=FILE --workdir=FOLDER
#   launch/slurm.sh logs --id=ID
#   launch/slurm.sh stop --id=ID
#
#   submit  runs `python -m vdm_jax.main --distributed` with what follows -- on
#           all nodes, a process for each of the --gpus of a node, with the
#           `python` that is active now.  Five minutes before --time is over,
#           or when preempted, the job saves and queues again
#   logs    follows the log, vdm_jax-ID.log in this checkout
#   stop    has the job save and leave, and not queue again
#
# Whatever else sbatch knows is an environment variable: SBATCH_QOS=...  With
# --dry-run the commands are printed, and none is run.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
job_of=submit  # the command that takes what stands behind --
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"

nodes='' gpus='' time='' name=vdm_jax cpus=8 partition='' account='' id=''

submit() {
  need nodes gpus time
  need_job
  need_tool sbatch "SLURM's clients, or go to a login node"
  run sbatch --job-name="$name" --nodes="$nodes" --ntasks-per-node="$gpus" \
    --gpus-per-node="$gpus" --cpus-per-task="$cpus" --time="$time" \
    ${partition:+--partition="$partition"} ${account:+--account="$account"} \
    --signal=TERM@300 --requeue --open-mode=append \
    --chdir="$root" --output='vdm_jax-%j.log' \
    "$root/launch/slurm_job.sh" "${job[@]}"
}

logs() {
  need id
  run tail -n 100 -F "$root/vdm_jax-$id.log"
}

# The signal reaches the tasks, which save; the job then may not queue again.
stop() {
  need id
  need_tool scancel "SLURM's clients, or go to a login node"
  run scontrol update "JobId=$id" Requeue=0
  run scancel --signal=TERM "$id"
}

case ${1:-} in
  submit) options='nodes gpus time name cpus partition account' ;;
  logs | stop) options='id' ;;
  --help | -h | '') usage && exit ;;
  *) fail "'$1' is not a command: give submit, logs or stop; --help shows" \
    'their options.' ;;
esac
command=$1
parse "$options" '' "${@:2}"
"$command"
