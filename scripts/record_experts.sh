#!/usr/bin/env bash
# Asks the experts about a whole data set before training, and keeps the answers: training then replays them.
#
#   bash scripts/record_experts.sh --dry-run experts=paper data.train_files=rows/train.rl.parquet      # what it can cost
#   bash scripts/record_experts.sh --budget 50 experts=paper data.train_files=rows/train.rl.parquet \
#       ekipl.record.path=records.sqlite
#
# Takes the config and overrides of recipe.ekipl.train; `--help` has the rest. Progress, time left and money are shown; the
# budget is never exceeded; the same command goes on where it stopped, also after Ctrl-C and kill -9.
# Keys come from the environment (OPENAI_API_KEY, GEMINI_API_KEY, ...).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/environment.sh
exec python -m recipe.ekipl.record_ahead "$@"
