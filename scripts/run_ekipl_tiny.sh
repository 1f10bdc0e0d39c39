#!/usr/bin/env bash
# EKIPL | tiny Qwen2-VL (1.6M parameters) | FSDP2 + vLLM on a CPU | 2 cores, 12 GiB of memory, 25 minutes (40 on a slow machine)
#
# Sets everything up, draws the synthetic world, brings a base model up, and trains it for real: verl, Ray,
# TransferQueue, vLLM, and two experts over HTTP. Nothing is done twice; the same command goes on where it stopped.
#
#   bash scripts/run_ekipl_tiny.sh                          # everything
#   STEPS=3 bash scripts/run_ekipl_tiny.sh                  # a first look
#   EXPERTS=none bash scripts/run_ekipl_tiny.sh             # plain GRPO, same path
#   RUN=paper bash scripts/run_ekipl_tiny.sh preset=paper   # the paper's rule, in a folder of its own
#
#   METHOD=reason_rft bash scripts/run_ekipl_tiny.sh        # another method of the paper
#
# METHOD    ekipl (default) | grpo | sft_ekipl | reason_rft | cot_sft | ans_sft | zero_shot  (python -m recipe.ekipl.methods --help)
# EXPERTS   demo      two demo experts, one for each provider's protocol (default)
#           none      no expert
#           vllm      a longer-trained tiny model behind a real vLLM server
#           recorded  the answers of an earlier run: RECORD=runs/<name>/records.sqlite
# DEMO      changes the demo experts: DEMO="demo-a:skill=0.9,failures=0.2 demo-b:latency=2"  (python -m recipe.ekipl.tiny.demo_experts --help)
# TASK      visual_counting | structure_perception | spatial_transformation
# STEPS     of reinforcement learning (100); SFT_STEPS of supervised learning (as many rows, a quarter before reinforcement)
# SEED      of data, base model and training (0); RUN names the folder below runs/
# Anything after the script's name goes to the reinforcement learning (Hydra's key=value, --dry-run, --verbose).
#
# Reads nothing but this repository. Writes data/, models/ and runs/<RUN>/ (report.html, metrics.jsonl, checkpoints).
set -euo pipefail
cd "$(dirname "$0")/.."
EXPERTS=${EXPERTS:-demo}
TASK=${TASK:-visual_counting}
SEED=${SEED:-0}
STEPS=${STEPS:-100}
RUN=${RUN:-tiny-$TASK-${METHOD:-$EXPERTS}-$SEED}
METHOD=${METHOD:-$([ "$EXPERTS" = none ] && echo grpo || echo ekipl)}
RECORD=${RECORD:-runs/tiny-$TASK-demo-$SEED/records.sqlite}

case $METHOD in
    ekipl | sft_ekipl) [ "$EXPERTS" != none ] || { echo "METHOD=$METHOD is about experts. METHOD=grpo trains without." >&2; exit 2; } ;;
    zero_shot | ans_sft | cot_sft | grpo | reason_rft) EXPERTS=none ;;
    *) echo "METHOD=$METHOD is not known. Choose zero_shot, ans_sft, cot_sft, grpo, reason_rft, ekipl or sft_ekipl." >&2; exit 2 ;;
esac
case $EXPERTS in
    demo | vllm | none) ;;
    recorded) [ -f "$RECORD" ] || { echo "RECORD=$RECORD does not exist. Train once with EXPERTS=demo, or name another run's records.sqlite." >&2; exit 2; } ;;
    *) echo "EXPERTS=$EXPERTS is not known. Choose demo, none, vllm or recorded." >&2; exit 2 ;;
esac
case $TASK in
    visual_counting | structure_perception | spatial_transformation) ;;
    *) echo "TASK=$TASK is not known. Choose visual_counting, structure_perception or spatial_transformation." >&2; exit 2 ;;
esac
[[ $STEPS =~ ^[1-9][0-9]*$ ]] || { echo "STEPS=$STEPS must be a whole number, 1 or more." >&2; exit 2; }
[[ ${SFT_STEPS:-1} =~ ^[1-9][0-9]*$ ]] || { echo "SFT_STEPS=$SFT_STEPS must be a whole number, 1 or more." >&2; exit 2; }
[[ $SEED =~ ^[0-9]+$ ]] || { echo "SEED=$SEED must be a whole number, 0 or more." >&2; exit 2; }

export VERL_PLATFORM=cpu  # also on a machine that has a GPU
source scripts/lib/environment.sh
source scripts/lib/servers.sh

WORLD=data/synthetic-$SEED
ROWS=data/parquet-$SEED
MODEL=models/tiny-$TASK-$SEED

start_demo_experts() {
    local ready=runs/$RUN/demo.url changes=() change
    for change in ${DEMO:-}; do changes+=(--expert "$change"); done
    start_server "$ready" "runs/$RUN/demo.log" \
        python -m recipe.ekipl.tiny.demo_experts --data "$WORLD" --seed "$SEED" --ready "$ready" "${changes[@]}"
    export EKIPL_DEMO_URL=$(cat "$ready")
}

start_vllm_expert() {
    local ready=runs/$RUN/vllm.url expert=$MODEL-expert
    python -m recipe.ekipl.tiny.base --data "$ROWS" --task "$TASK" --seed "$SEED" --lesson train --init "$MODEL" --out "$expert"
    echo "starting a vLLM server for the expert (about a minute)"
    start_server "$ready" "runs/$RUN/vllm.log" python -m recipe.ekipl.tiny.serve --model "$expert" --ready "$ready"
    export EKIPL_VLLM_URL=$(cat "$ready")/v1 EKIPL_VLLM_MODEL=expert
}

mkdir -p "runs/$RUN"
python -m recipe.ekipl.data.synthetic.write --out "$WORLD" --tasks "$TASK" --seed "$SEED" >/dev/null
python -m recipe.ekipl.data reason_rft --data "$WORLD" --out "$ROWS" --tasks "$TASK" --template plain >/dev/null
python -m recipe.ekipl.tiny.base --data "$ROWS" --task "$TASK" --seed "$SEED" --out "$MODEL"

SFT=(--sft-config ekipl_sft_tiny --sft trainer.seed="$SEED")
RL=(--config-name ekipl_tiny data.seed="$SEED" ekipl.seed="$SEED" trainer.total_training_steps="$STEPS")
case $METHOD in
    zero_shot) STAGES=() ;;
    ans_sft | cot_sft) STAGES=("${SFT[@]}" --sft trainer.total_training_steps="${SFT_STEPS:-$STEPS}") ;;
    grpo) STAGES=("${RL[@]}") ;;
    reason_rft) STAGES=("${SFT[@]}" --sft trainer.total_training_steps="${SFT_STEPS:-$(((STEPS + 3) / 4))}" "${RL[@]}") ;;
    ekipl) STAGES=(--experts "$EXPERTS" "${RL[@]}") ;;
    sft_ekipl) STAGES=("${SFT[@]}" --sft trainer.total_training_steps="${SFT_STEPS:-$(((STEPS + 3) / 4))}" --experts "$EXPERTS" "${RL[@]}") ;;
esac
case $EXPERTS in
    demo) start_demo_experts ;;
    vllm) start_vllm_expert ;;
    recorded) STAGES+=(ekipl.record.path="$RECORD") ;;
esac
python -m recipe.ekipl.methods "$METHOD" --model "$MODEL" --rows "$ROWS/$TASK" --run "runs/$RUN" "${STAGES[@]}" "$@"

[[ " $* " != *" --dry-run "* ]] || exit 0
# reinforcement learning measures itself before and after; the others are measured here
case $METHOD in
    zero_shot) measured=$MODEL ;;
    ans_sft | cot_sft) measured=runs/$RUN ;;
    *) exit 0 ;;
esac
splits=$(cd "$ROWS/$TASK" && ls -- *.rl.parquet | grep -v '^train' | sed 's/\.rl\.parquet$//')
python -m recipe.ekipl.evaluate --model "$measured" --data "$ROWS" --splits $splits --max-tokens 64 --method "$METHOD" \
    --train-seed "$SEED" --out "runs/$RUN/evaluations/greedy"
