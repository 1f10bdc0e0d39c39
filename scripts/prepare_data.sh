#!/usr/bin/env bash
# Reason-RFT-CoT-Dataset -> parquet for verl: three train files and the seven test splits. CPU only.
#
#   bash scripts/prepare_data.sh                                       # from the hub, then converted
#   DATA=/data/Reason-RFT-CoT-Dataset bash scripts/prepare_data.sh     # from a folder that is here
#   bash scripts/prepare_data.sh --tasks visual_counting --pictures reference
#
# DATA      folder with train_jsons/, test_jsons/ and the pictures (data/reason_rft; downloaded when it is missing)
# OUT       where the parquet files go (data/rows)
# Anything after the script's name goes to `python -m recipe.ekipl.data reason_rft` (--help explains).
# The same command again goes on where it stopped. Refused rows: OUT/<task>/<split>.refused.jsonl
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/environment.sh
OUT=${OUT:-data/rows}
if [ -z "${DATA:-}" ]; then
    DATA=data/reason_rft
    python -m recipe.ekipl.data download --out "$DATA"
fi
exec python -m recipe.ekipl.data reason_rft --data "$DATA" --out "$OUT" "$@"
