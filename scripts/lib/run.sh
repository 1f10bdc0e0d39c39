# Shared by the run scripts: reads METHOD, TASK, EXPERTS, NNODES, ...; checks; trains. Sourced, not run.
# The caller sets ENGINE=(...), MEMORY=(...) and the defaults of MODEL_PATH, NGPUS and GPU_GIB; all of "$@" goes to the training.

METHOD=${METHOD:-ekipl}
TASK=${TASK:-visual_counting}
EXPERTS=${EXPERTS:-paper}
NNODES=${NNODES:-1}
COT_ROWS=${COT_ROWS:-1600}  # Reason-RFT's
ROWS=${ROWS:-data/rows/$TASK}
NAME=$(basename "$MODEL_PATH" | tr 'A-Z' 'a-z')
RUN=${RUN:-$NAME-$TASK-$METHOD}
RUN_DIR=${RUN_DIR:-$PWD/runs/$RUN}

# Epochs by size of the data set (section 4.1), and the rows that a plan assumes while the files are not here.
case $TASK in
    visual_counting) EPOCHS=1 ASSUMED_ROWS=35000 VAL=clevr_math ;;
    spatial_transformation) EPOCHS=1 ASSUMED_ROWS=60000 VAL=trance ;;
    structure_perception) EPOCHS=5 ASSUMED_ROWS=4500 VAL=geomath ;;
    *) echo "TASK=$TASK is not known. Choose visual_counting, spatial_transformation or structure_perception." >&2; exit 2 ;;
esac
case $METHOD in
    ekipl | sft_ekipl) [ "$EXPERTS" != none ] || { echo "METHOD=$METHOD is about experts. METHOD=grpo trains without." >&2; exit 2; } ;;
    grpo | reason_rft) EXPERTS=none ;;
    ans_sft | cot_sft) ;;
    zero_shot)
        echo "METHOD=zero_shot trains nothing: python -m recipe.ekipl.evaluate --model $MODEL_PATH --data $(dirname "$ROWS") --out $RUN_DIR" >&2
        exit 2 ;;
    *) echo "METHOD=$METHOD is not known. Choose ekipl, sft_ekipl, grpo, reason_rft, ans_sft or cot_sft." >&2; exit 2 ;;
esac

[[ $COT_ROWS =~ ^(-1|[1-9][0-9]*)$ ]] || { echo "COT_ROWS=$COT_ROWS must be a whole number, 1 or more, or -1 for all rows." >&2; exit 2; }

# The paper: N = G = 8, learning rate 5e-7 with a cosine, KL 0.005, AdamW. They are ekipl_trainer.yaml's; here in sight.
ALGORITHM=(
    ekipl.num_answers=8
    actor_rollout_ref.rollout.n=8
    actor_rollout_ref.actor.optim.lr=5e-7
    actor_rollout_ref.actor.kl_loss_coef=0.005
)
MICRO_BATCH=(  # tokens on one GPU at a time; what does not fit goes into further micro-batches
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=16384
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=16384
)
CLUSTER=(
    trainer.n_gpus_per_node="$NGPUS"
    trainer.nnodes="$NNODES"
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
)
OUTPUT=(
    trainer.total_epochs="$EPOCHS"
    trainer.test_freq=50
)
DATA=(data.train_files="$ROWS/train.rl.parquet" data.val_files="$ROWS/$VAL.rl.parquet")
RUN_SETTINGS=("${ENGINE[@]}" "${ALGORITHM[@]}" "${CLUSTER[@]}" "${MICRO_BATCH[@]}" "${MEMORY[@]}" "${OUTPUT[@]}")

# The supervised stage: on the same GPUs; alone, for as many epochs as the reinforcement learning.
SUPERVISED=()
case $METHOD in *sft* | reason_rft) SUPERVISED=(--sft trainer.n_gpus_per_node="$NGPUS") ;; esac
case $METHOD in
    *_sft) SUPERVISED+=(--sft trainer.total_epochs="$EPOCHS") ;;
    sft_ekipl | reason_rft) SUPERVISED+=(--sft data.train_max_samples="$COT_ROWS") ;;
esac

# The check gets the settings; --verbose and other flags, with what follows --sft, are the training's.
settings_of() {
    while [ $# -gt 0 ]; do
        case $1 in --sft | --sft-config | --sft-run) shift ;; -*) ;; *) printf '%s\0' "$1" ;; esac
        shift
    done
}

# What the supervised stage of two gets of it in a dry run.
supervised_of() {
    while [ $# -gt 0 ]; do
        case $1 in --sft | --sft-config) printf '%s\0%s\0' "$1" "${2:-}"; shift ;; esac
        shift
    done
}

source scripts/lib/environment.sh
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mapfile -d '' -t ADDED < <(settings_of "$@")
mapfile -d '' -t ADDED_SUPERVISED < <(supervised_of "$@")

case $METHOD in
    *_sft)  # supervised: no rollout, no experts
        dry=(); [ -z "${DRY_RUN:-}" ] || dry=(--dry-run --assume-rows "$ASSUMED_ROWS")
        exec python -m recipe.ekipl.methods "$METHOD" --model "$MODEL_PATH" --rows "$ROWS" --run "$RUN_DIR" "${SUPERVISED[@]}" "${dry[@]}" "$@" ;;
    sft_ekipl | reason_rft)
        [ -z "${DRY_RUN:-}" ] || { echo "stage 1, supervised:"; python -m recipe.ekipl.methods cot_sft --model "$MODEL_PATH" --rows "$ROWS" \
            --run "$RUN_DIR-sft" "${SUPERVISED[@]}" "${ADDED_SUPERVISED[@]}" --dry-run --assume-rows "$ASSUMED_ROWS"; echo "stage 2, reinforcement learning:"; } ;;
esac

check=(python -m recipe.ekipl.hardware "${DATA[@]}" experts="$EXPERTS" actor_rollout_ref.model.path="$MODEL_PATH"
    ekipl.run_dir="$RUN_DIR" "${RUN_SETTINGS[@]}" "${ADDED[@]}" --assume-rows "$ASSUMED_ROWS" --assume-task "$TASK" --gpu-gib "$GPU_GIB")
[ -z "${DRY_RUN:-}" ] || exec "${check[@]}" --dry-run
"${check[@]}"
exec python -m recipe.ekipl.methods "$METHOD" --model "$MODEL_PATH" --rows "$ROWS" --run "$RUN_DIR" --experts "$EXPERTS" \
    "${SUPERVISED[@]}" "${RUN_SETTINGS[@]}" "$@"
