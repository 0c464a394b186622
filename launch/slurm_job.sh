#!/usr/bin/env bash
# The batch script of launch/slurm.sh: once on the first node of the job.
#
# SIGTERM before the time limit reaches the tasks alone; all save and leave with
# 75.  A cancelled job's reaches this script too and ends it: no requeue.

set -euo pipefail

# jax takes the GPU of a task's number, so all GPUs of a node must be visible to
# each (no --gpus-per-task).  The tasks end one another by jax itself, which
# lets them save at a signal.  srun's code is the highest of all tasks.
code=0
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --label --kill-on-bad-exit=0 \
  --wait=600 python -m vdm_jax.main --distributed "$@" || code=$?

again=${SLURM_RESTART_COUNT:-0}
echo "launch: exit code $code, after $again restarts" >&2
if ((code == 75 || (code >= 128 && again < 20))); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
