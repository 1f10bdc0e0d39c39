#!/usr/bin/env bash
# Everything that only a GPU can show | random 2B-shaped Qwen2-VL | one GPU of 80 GB or more, 64 GB of memory, 30 GB of disk
#
# 1. recipe.ekipl.gpu: attention and engine parity, and what one EKIPL update costs beside plain transformers
# 2. a few steps of recipe.ekipl.train on one GPU: vLLM rollout and FSDP2 actor colocated, demo experts over HTTP
# 3. the same steps without experts: plain GRPO with the same G on the same rows
#
#   bash scripts/gpu_checks.sh
#   EKIPL_VENV=/opt/verl bash scripts/gpu_checks.sh   # in an environment that has verl 0.9.1, vllm 0.24.0 and flash-attn
#   DRY_RUN=1 bash scripts/gpu_checks.sh              # anywhere: 1 in small on the CPU, the plans of 2 and 3
#
# STEPS     training steps of 2 and of 3 (3)
# Anything after the script's name goes to recipe.ekipl.train (Hydra's key=value).
#
# Downloads nothing. Writes data/, models/ and runs/gpu-*/; the JSON line of 1 goes to runs/gpu/checks.json.
set -euo pipefail
cd "$(dirname "$0")/.."
STEPS=${STEPS:-3}
DRY_RUN=${DRY_RUN:-}

[ -z "$DRY_RUN" ] || export VERL_PLATFORM=cpu  # also on a machine that has a GPU
source scripts/lib/environment.sh
source scripts/lib/servers.sh
export HF_HUB_OFFLINE=1
export EKIPL_DEMO_URL=http://127.0.0.1:1  # replaced by the server's own address

WORLD=data/gpu-synthetic
ROWS=data/gpu-parquet
TASK=visual_counting
MODEL=models/gpu-2b
CHECKED=runs/gpu${DRY_RUN:+-dry}
mkdir -p runs/gpu "$CHECKED"

CHECKS=(--size 2b --device cuda)
[ -z "$DRY_RUN" ] || CHECKS=(--size tiny --device cpu --repeats 1)
python -m recipe.ekipl.gpu "${CHECKS[@]}" | tee "$CHECKED/checks.txt"
tail -1 "$CHECKED/checks.txt" >"$CHECKED/checks.json"

python -m recipe.ekipl.data.synthetic.write --out "$WORLD" --tasks "$TASK" --seed 0 >/dev/null
python -m recipe.ekipl.data reason_rft --data "$WORLD" --out "$ROWS" --tasks "$TASK" --template plain >/dev/null
if [ -n "$DRY_RUN" ]; then
    python -m recipe.ekipl.tiny.model --out "$MODEL-tiny" >/dev/null
    MODEL=$MODEL-tiny
elif [ ! -f "$MODEL/tokenizer.json" ]; then
    python -m recipe.ekipl.gpu.sizes --size 2b --out "$MODEL"
fi
if [ -z "$DRY_RUN" ]; then
    start_server runs/gpu/demo.url runs/gpu/demo.log \
        python -m recipe.ekipl.tiny.demo_experts --data "$WORLD" --seed 0 --ready runs/gpu/demo.url
    EKIPL_DEMO_URL=$(cat runs/gpu/demo.url)
fi

DATA=(data.train_files="$ROWS/$TASK/train.rl.parquet" data.val_files="$ROWS/$TASK/train.rl.parquet" data.train_batch_size=32
    data.max_prompt_length=512 data.max_response_length=256)
ENGINE=(actor_rollout_ref.model.path="$PWD/$MODEL" actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.ref.strategy=fsdp2
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=32768)
ROLLOUT=(actor_rollout_ref.rollout.tensor_model_parallel_size=1 actor_rollout_ref.rollout.gpu_memory_utilization=0.4
    actor_rollout_ref.rollout.max_model_len=768)
TRAINER=(trainer.nnodes=1 trainer.n_gpus_per_node=1 trainer.total_training_steps="$STEPS" trainer.save_freq=-1
    trainer.test_freq=-1 trainer.val_before_train=false)
for experts in demo none; do
    python -m recipe.ekipl.train ${DRY_RUN:+--dry-run} experts="$experts" trainer.experiment_name="gpu-$experts" \
        "${DATA[@]}" "${ENGINE[@]}" "${ROLLOUT[@]}" "${TRAINER[@]}" "$@"
done
