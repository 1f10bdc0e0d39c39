#!/usr/bin/env bash
# EKIPL | stock verl GRPO and EKIPL side by side in one run | CPU or GPU; about ten minutes on 2 idle cores
#
#   bash scripts/benchmark.sh            # a table, and one JSON object as the last line
#   bash scripts/benchmark.sh --short    # does it work?
#   bash scripts/benchmark.sh --help
#
# Reads nothing but this repository. Writes runs/benchmark/. The same command again does the blocks that are missing.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/environment.sh
exec python -m recipe.ekipl.benchmark "$@"
