#!/usr/bin/env bash
# {{ name }}: one process per GPU, on several nodes with a shared file system.
#SBATCH --job-name={{ name }}
#SBATCH --partition={{ partition }}
#SBATCH --nodes={{ hosts }}
#SBATCH --ntasks-per-node={{ gpus }}
#SBATCH --gpus-per-node={{ gpus }}
#SBATCH --cpus-per-task={{ cpus }}
#SBATCH --time={{ time }}
#SBATCH --signal=B:TERM@{{ grace }}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={{ name }}-%j.log
export PATH={{ bin | sh }}:"$PATH"
export VIDJAX_COMMIT={{ commit | sh }}
export JAX_COMPILATION_CACHE_DIR={{ cache | sh }}
export RESTARTS={{ restarts }}
# --distributed finds the coordinator and the processes in the variables that Slurm sets for the step. A process that
# fails ends the others itself, with the reason; Slurm would kill them first.
export ON_STOP="scontrol requeue $SLURM_JOB_ID"
cd {{ here | sh }} || exit 2
set -- srun --kill-on-bad-exit=0 --wait=300 {{ command | distributed | sh }}
{% include "run.sh" %}
