#!/usr/bin/env bash
# EKIPL | Qwen2-VL-7B | Megatron-Core (TP 2, PP 2) + vLLM | 8 GPUs of 80 GB
#
# Needs Megatron, TransformerEngine and flash-attn, verl's attention_backend (docs/megatron.md). Also Qwen2.5-VL-7B by MODEL_PATH.
# The first call, a dry run too, installs .venv (scripts/setup.sh): 6.6 GB without a GPU, not measured with one. EKIPL_VENV=/path takes an
# environment that has verl 0.9.1 instead; half a gigabyte is enough for a dry run (docs/hardware.md).
#
#   bash scripts/run_ekipl_7b_megatron.sh                                    # Vision-EKIPL on visual counting, the paper's two experts
#   DRY_RUN=1 bash scripts/run_ekipl_7b_megatron.sh                          # anywhere, no GPU: the plan, memory, requests, dollars, hours
#   METHOD=grpo TASK=spatial_transformation bash scripts/run_ekipl_7b_megatron.sh
#   NNODES=2 RAY_ADDRESS=auto bash scripts/run_ekipl_7b_megatron.sh ekipl.record.path=/local/records.sqlite   # a cluster: scripts/cluster/
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
export CUDA_DEVICE_MAX_CONNECTIONS=1  # Megatron overlaps communication by the order of launches

ENGINE=(
    model_engine=megatron
    actor_rollout_ref.actor.megatron.use_mbridge=True
    actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2
    actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2
    +actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularity=full
    +actor_rollout_ref.actor.megatron.override_transformer_config.recompute_method=uniform
    +actor_rollout_ref.actor.megatron.override_transformer_config.recompute_num_layers=1
)
MEMORY=(actor_rollout_ref.rollout.gpu_memory_utilization=0.5)
source scripts/lib/run.sh
