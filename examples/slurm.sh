#!/bin/bash
# An array of Slurm jobs that shares the parts of one set of tables:
#   LIST=photos.parquet OUT=/shared/faces sbatch examples/slurm.sh
# A job that is preempted is queued again and goes on where it was. Submit it again, with any number of jobs, if some fail.
#SBATCH --job-name=canthus
#SBATCH --array=0-15
#SBATCH --cpus-per-task=16
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
export OMP_NUM_THREADS=1
canthus align "${LIST:?want a list of photos}" --format parquet --out "${OUT:?want a folder that all nodes reach}" \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --workers "$SLURM_CPUS_PER_TASK" --memory 15000 \
  --resume --allow-failures
