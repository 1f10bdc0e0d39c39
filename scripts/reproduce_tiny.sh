#!/usr/bin/env bash
# The paper's study in miniature on a CPU: seven methods, seven test splits, three seeds, two regimes; then Table 1,
# Figures 3 to 5 and docs/results.md, each of the paper's claims with what became of it here.
# About 8 hours on 2 cores, fewer with --jobs 2; never yet run to its end, so that this is a guess.
#
#   bash scripts/reproduce_tiny.sh --dry-run                  # the pieces, and how long they may take
#   bash scripts/reproduce_tiny.sh                            # everything; stop and go on at any time
#   bash scripts/reproduce_tiny.sh --only 'lacks/ekipl*-0'    # some pieces and what they need
#   bash scripts/reproduce_tiny.sh --size path --seeds 0      # a few steps of everything, to see that it runs
#
# Writes runs/reproduce-<size>/ (not committed), and docs/results.md and docs/results/ (small, committed): also what the page
# needs of each finished piece (docs/results/pieces), so that the study can be gone on with on another machine.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/environment.sh
exec python -m recipe.ekipl.reproduce "$@"
