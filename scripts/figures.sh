#!/usr/bin/env bash
# The paper's Figures 3, 4 and 5 and two of ours (accuracy against dollars, groups that carry gradient), as PNG and SVG,
# each with its numbers as CSV. A minute; needs no GPU.
#
#   bash scripts/figures.sh                              # every run and evaluation below runs/, under its own name
#   bash scripts/figures.sh ekipl=runs/a-0 ekipl=runs/a-1 grpo=runs/b-0 zero_shot=runs/evaluations/base-greedy
#
# name=folder: runs (metrics.jsonl) and folders of evaluations; several of one name are training seeds.
# OUT       where the files go (runs/figures)
# Reads run folders, writes OUT, and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/environment.sh
if [ $# -eq 0 ]; then
    shopt -s nullglob
    for file in runs/*/metrics.jsonl runs/evaluations/*/result.paper.json; do set -- "$@" "$(dirname "$file")"; done
    [ $# -gt 0 ] || { echo "there is no run and no evaluation below runs/: train first, or name folders" >&2; exit 2; }
fi
exec python -m recipe.ekipl.measure.figures --out "${OUT:-runs/figures}" "$@"
