#!/usr/bin/env bash
# Which selection rule, baseline and weight: nine variants (`--variants all`: every one) in two regimes, three seeds each, on
# the tiny Qwen2-VL and the real stack (verl, Ray, TransferQueue, FSDP2, vLLM). Hours to days; stop it whenever you like: the
# same command goes on.
#
#   bash scripts/ablation_tiny.sh --dry-run                                  # the runs, and an estimate
#   bash scripts/ablation_tiny.sh                                            # everything that is missing, then the table
#   bash scripts/ablation_tiny.sh --regimes lacks_skill --variants grpo paper robust --seeds 0
#   bash scripts/ablation_tiny.sh --jobs 2                                   # two runs at a time, 5 GiB each: a half more an hour
#   bash scripts/ablation_tiny.sh --look --regimes lacks_skill --variants robust --seeds 0 --steps 3 --results runs/look.jsonl
#                                                                            # one short run, to see that it works
#
# Arguments go to `python -m recipe.ekipl.ablation run` (--help explains them). One line a finished run in
# docs/ablation/results.jsonl, which is small enough to commit; table.md and figures beside it. Run folders: runs/ablation/.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/environment.sh
python -m recipe.ekipl.ablation run "$@"
[[ " $* " != *" --dry-run "* && " $* " != *" --help "* ]] || exit 0
python -m recipe.ekipl.ablation table
