#!/usr/bin/env bash
# Sets everything up and runs the tests. What CI runs.
#
#   bash scripts/run_tests.sh            # lint and types, quick tests, contracts with verl and vLLM, end to end on the CPU
#   bash scripts/run_tests.sh quick      # lint, types and quick tests only: under two minutes, no Ray, no vLLM
#   bash scripts/run_tests.sh contract | e2e
#   bash scripts/run_tests.sh all -k top # everything after the first word goes to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
command -v chromium chromium-browser google-chrome >/dev/null ||
    echo "no Chromium here: the viewer's tests in a browser are skipped. apt-get install -y chromium" >&2
ROOT=$PWD
source scripts/lib/venv.sh
PYTHON=$VENV/bin/python
what=${1:-all}
shift || true

# Beside the environment and not in it: with Megatron installed every `import verl` would look for TransformerEngine.
# tests/megatron_cpu puts this folder on the path of its own processes.
megatron() {
    local pins=scripts/requirements-megatron.txt folder
    folder=$("$PYTHON" -c 'import sys; print(sys.prefix)')/megatron-packages
    cmp -s "$pins" "$folder/installed.txt" && return
    rm -rf "$folder"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" -r "$pins"
    cp "$pins" "$folder/installed.txt"
}
# Exit status 5 is pytest's "no test matched -k": fine when only a part was asked for.
# What failed is run once more, and said loudly: a busy machine must not hide a failure, nor invent one.
run() {
    local status=0
    "$PYTHON" -m pytest "$@" || status=$?
    if [ "$status" -eq 1 ]; then
        echo "== ONCE MORE, only what failed (a test that passes now is flaky: mend it) =="
        status=0
        "$PYTHON" -m pytest --last-failed --last-failed-no-failures none "$@" || status=$?
    fi
    [ "$status" -eq 0 ] || [ "$status" -eq 5 ]
}
part_lint() { "$PYTHON" -m ruff check . && "$PYTHON" -m ruff format --check . && "$PYTHON" -m mypy; }
# By folder: to leave the contracts out by their marker, pytest imports them first, and torch, verl and Ray with them.
part_quick() { run -n 2 --dist worksteal -m "not contract and not e2e" tests/reward tests/rollout tests/recipe_ekipl "$@"; }
part_contract() { run -n 2 --dist loadfile -m contract "$@"; } # mostly imports of torch, verl and vLLM: two at a time
part_e2e() { run -m e2e "$@"; }

case $what in
    quick) parts=(lint quick) ;;
    contract | e2e) parts=("$what") ;;
    all) parts=(lint quick contract e2e) ;;
    *) echo "usage: $0 [all | quick | contract | e2e] [pytest options]" >&2; exit 2 ;;
esac
[ "$what" = quick ] || megatron
failed=() # every part is run, so that one failure does not hide another
for part in "${parts[@]}"; do
    "part_$part" "$@" || failed+=("$part")
done
[ ${#failed[@]} -eq 0 ] || { echo "FAILED: ${failed[*]}" >&2; exit 1; }
