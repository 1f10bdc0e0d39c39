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
PYTHON=${EKIPL_VENV:-.venv}/bin/python
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
lint() { "$PYTHON" -m ruff check . && "$PYTHON" -m ruff format --check . && "$PYTHON" -m mypy; }
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
quick() { run -n 2 --dist worksteal -m "not contract and not e2e" "$@"; }

case $what in
    quick) lint; quick "$@" ;;
    contract) megatron; run -m contract "$@" ;;
    e2e) megatron; run -m e2e "$@" ;;
    all) lint; quick "$@"; megatron; run -m contract "$@"; run -m e2e "$@" ;;
    *) echo "usage: $0 [all | quick | contract | e2e] [pytest options]" >&2; exit 2 ;;
esac
