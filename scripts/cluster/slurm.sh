#!/usr/bin/env bash
#SBATCH --job-name=ekipl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=48:00:00
#SBATCH --signal=TERM@120
# A Ray cluster over the nodes of a Slurm job, and a run on it. The repository on a file system that all nodes see.
#
#   sbatch scripts/cluster/slurm.sh ekipl.record.path=/local/records.sqlite      # run_ekipl_7b.sh on 2 x 8 GPUs
#   sbatch --nodes=4 --export=ALL,SCRIPT=scripts/run_ekipl_7b_megatron.sh,TASK=structure_perception scripts/cluster/slurm.sh \
#       ekipl.record.path=/local/records.sqlite
#
# SCRIPT is the run script; its own variables (METHOD, TASK, EXPERTS, ...) are handed on by --export. Slurm's default,
# --export=ALL, also hands on the experts' keys of the submitting shell, to every node. Words after the file go to SCRIPT.
# The record of expert answers wants a disk of each node (network file systems are refused), as in all of these:
#   sbatch scripts/cluster/slurm.sh ekipl.record.path=/local/ekipl/records.sqlite
# Afterwards: python -m ekipl_rollout.record merge all.sqlite node0.sqlite node1.sqlite
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is for sbatch; without Slurm see scripts/cluster/ray_node.sh}"
SCRIPT=${SCRIPT:-scripts/run_ekipl_7b.sh}
PORT=${PORT:-6379}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
on() { srun --nodes=1 --ntasks=1 --overlap --nodelist="$1" "${@:2}"; }

trap 'for node in "${nodes[@]}"; do on "$node" bash scripts/cluster/ray_node.sh stop || true; done' EXIT
# srun ends what it started when it returns: each node's Ray stays in the foreground of a step of its own
on "${nodes[0]}" env PORT="$PORT" bash scripts/cluster/ray_node.sh head --block &
sleep 20
for node in "${nodes[@]:1}"; do
    on "$node" bash scripts/cluster/ray_node.sh worker "$head:$PORT" --block &
done

on "${nodes[0]}" env NNODES="${#nodes[@]}" NGPUS="${SLURM_GPUS_ON_NODE:-8}" RAY_ADDRESS="$head:$PORT" \
    bash scripts/cluster/wait_for_nodes.sh bash "$SCRIPT" "$@"
