#!/usr/bin/env bash
# Writes scripts/requirements-cpu.txt anew from requirements-cpu.in: every package pinned, for Python 3.10-3.12.
# Needs uv (pip install uv). Index addresses are left out on purpose: the file works with any mirror.
set -euo pipefail
cd "$(dirname "$0")"
overrides=$(mktemp)
trap 'rm -f "$overrides"' EXIT
grep -E '^(torch|torchvision|torchaudio|transformers)==' requirements-cpu.in | sed 's/ *#.*//' >"$overrides"
uv pip compile --universal --python-version 3.10 --no-emit-index-url --no-header --no-annotate \
    --override "$overrides" requirements-cpu.in -o requirements-cpu.txt "$@" >/dev/null
grep -vE "sys_platform == '(win32|darwin|emscripten|ios|android)'|platform_system == 'Windows'$" requirements-cpu.txt >"$overrides.txt"
mv "$overrides.txt" requirements-cpu.txt
wc -l requirements-cpu.txt
