#!/usr/bin/env bash
# EKIPL | Qwen2-VL-7B | FSDP2 + vLLM | 8 GPUs of 80 GB (the paper's: A100)
#
# Also Qwen2.5-VL-7B and Qwen3-VL-8B by MODEL_PATH.
# Needs flash-attn: pip install flash-attn --no-build-isolation. Without it, slower and with rounded log-probabilities (docs/gpu.md), add
#   actor_rollout_ref.model.use_remove_padding=False +actor_rollout_ref.model.override_config.attn_implementation=sdpa
# The first call, a dry run too, installs .venv (scripts/setup.sh): 6.6 GB without a GPU, not measured with one. EKIPL_VENV=/path takes an
# environment that has verl 0.9.1 instead; half a gigabyte is enough for a dry run (docs/hardware.md).
#
#   bash scripts/run_ekipl_7b.sh                                    # Vision-EKIPL on visual counting, the paper's two experts
#   DRY_RUN=1 bash scripts/run_ekipl_7b.sh                          # anywhere, no GPU: the plan, memory, requests, dollars, hours
#   METHOD=grpo TASK=spatial_transformation bash scripts/run_ekipl_7b.sh
#   NNODES=2 RAY_ADDRESS=auto bash scripts/run_ekipl_7b.sh ekipl.record.path=/local/records.sqlite   # a cluster: scripts/cluster/
#
# METHOD      ekipl | sft_ekipl | grpo | reason_rft | ans_sft | cot_sft (python -m recipe.ekipl.methods --help)
# COT_ROWS    rows of the supervised stage of sft_ekipl and reason_rft (1600, as Reason-RFT; -1: all)
# TASK        visual_counting | spatial_transformation | structure_perception
# EXPERTS     a file in recipe/ekipl/config/experts: paper (default), openai, gemini, vllm, ...; a replay adds ekipl.record.mode=replay ekipl.record.path=...
# MODEL_PATH  a folder or a name (Qwen/Qwen2-VL-7B-Instruct)
# NNODES, NGPUS, GPU_GIB (for a dry run elsewhere), ROWS (data/rows/<task>), RUN, RUN_DIR (runs/<RUN>)
# Anything after the script's name goes to the training: Hydra's key=value, --verbose.
#
# Reads   ROWS (bash scripts/prepare_data.sh), the model, the experts' keys from the environment (OPENAI_API_KEY, GEMINI_API_KEY).
# Writes  RUN_DIR: checkpoints, records.sqlite, ledger.sqlite, metrics.jsonl, report.html. The same command goes on.
# Before anything is loaded it says what is missing: GPUs, memory, data, keys. Not run on GPUs yet (docs/hardware.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2-VL-7B-Instruct}
NGPUS=${NGPUS:-8}
GPU_GIB=${GPU_GIB:-80}  # of GPUs that a dry run on another machine assumes

ENGINE=(
    actor_rollout_ref.actor.strategy=fsdp2
    actor_rollout_ref.ref.strategy=fsdp2
)
MEMORY=(actor_rollout_ref.rollout.gpu_memory_utilization=0.6)
source scripts/lib/run.sh
