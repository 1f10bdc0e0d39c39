#!/usr/bin/env bash
# Makes the Python environment: .venv in this repository (.venv-cpu for VERL_PLATFORM=cpu beside a GPU), or checks the one named
# by EKIPL_VENV.
#
#   bash scripts/setup.sh              # idempotent: a second call returns at once; an interrupted one goes on
#   EKIPL_VENV=/path/to/venv  ...      # use an environment that already has verl 0.9.1 (adds only this package)
#   PYTHON=python3.11         ...      # choose the interpreter (3.10, 3.11 or 3.12)
#   EKIPL_SKIP_CHECKS=1       ...      # do not stop for too little disk or memory
#
# With an NVIDIA GPU it installs the extra `train`; without one the pinned CPU set (scripts/requirements-cpu.txt).
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$ROOT/scripts/lib/venv.sh"
NEED_DISK_GB=9      # 6.6 GB of packages, the rest for models, data and runs
NEED_MEMORY_GB=12   # a CPU run peaks at 5 GiB, at 9 with a second vLLM as its expert

say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '\033[31m[setup] %s\033[0m\n' "$*" >&2; exit 1; }

has_gpu() { [ "${VERL_PLATFORM:-}" != cpu ] && has_nvidia; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3.10 python3}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    say "no Python 3.10, 3.11 or 3.12 with venv found (tried: ${PYTHON:-python3.12 python3.11 python3.10 python3}).
        Install one (Debian: apt-get install python3 python3-venv) or name it: PYTHON=/path/to/python3.11 bash $0"
    return 1
}

# All that is missing, at once. What an interrupted installation has already written counts as free.
check_machine() {
    local disk memory missing=0
    [ -x "$VENV/bin/python" ] || find_python >/dev/null || missing=1
    if [ -z "${EKIPL_SKIP_CHECKS:-}" ]; then
        disk=$(df -Pk "$(dirname "$VENV")" | awk 'NR==2 {print int($4 / 1048576)}')
        disk=$((disk + $(du -sk "$VENV" 2>/dev/null | awk '{print int($1 / 1048576)}' | grep . || echo 0)))
        memory=$(awk '/MemTotal/ {print int($2 / 1048576)}' /proc/meminfo 2>/dev/null || echo 999)
        [ "$disk" -ge "$NEED_DISK_GB" ] || { missing=1; say "$disk GB free on the disk of $VENV, $NEED_DISK_GB GB needed. Free some, or set EKIPL_VENV, or EKIPL_SKIP_CHECKS=1."; }
        [ "$memory" -ge "$NEED_MEMORY_GB" ] || { missing=1; say "$memory GiB of memory, $NEED_MEMORY_GB GiB needed for a CPU run. EKIPL_SKIP_CHECKS=1 tries all the same."; }
    fi
    [ $missing = 0 ] || die "nothing was installed."
}

# uv resolves nothing here (every package is pinned); it is used because it unpacks in parallel and resumes.
install_packages() {
    local index
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==0.13.8"
    # uv does not read pip's configuration: hand over a mirror and certificates that the user has set for pip.
    index=$("$VENV/bin/python" -m pip config get global.index-url 2>/dev/null || true)
    export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-${index:-}}}
    [ -n "$UV_DEFAULT_INDEX" ] || unset UV_DEFAULT_INDEX
    [ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$PIP_CERT}
    export UV_PYTHON_DOWNLOADS=never UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180}
    local uv=("$VENV/bin/uv" pip install --python "$VENV/bin/python")
    if has_gpu; then
        "${uv[@]}" -e "$ROOT[train,dev]"
    else
        "${uv[@]}" --no-deps --compile-bytecode -r "$ROOT/scripts/requirements-cpu.txt"
        "${uv[@]}" --no-deps --no-build-isolation -e "$ROOT"
    fi
}

use_existing() {
    local python=$VENV/bin/python
    [ -x "$python" ] || die "EKIPL_VENV=$VENV has no bin/python."
    "$python" - <<'PY' || die "EKIPL_VENV=$VENV cannot be used: it must hold verl 0.9.1 (see the message above)."
from importlib.metadata import PackageNotFoundError, version
try:
    found = version("verl")
except PackageNotFoundError:
    raise SystemExit("verl is not installed there")
if found != "0.9.1":
    raise SystemExit(f"verl {found} is installed there; this package hangs on names of 0.9.1")
PY
    "$python" -c 'import recipe.ekipl, importlib.metadata as m; m.version("ekipl")' 2>/dev/null ||
        "$python" -m pip install --quiet --no-deps -e "$ROOT"
}

if [ -n "${EKIPL_VENV:-}" ]; then
    use_existing
    exit 0
fi

stamp=$(cat "$ROOT/scripts/requirements-cpu.txt" "$ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1)-$(has_gpu && echo gpu || echo cpu)
if [ "$(cat "$VENV/.ekipl-stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
check_machine
if [ ! -x "$VENV/bin/python" ]; then
    python=$(find_python)
    say "making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
fi
say "installing about 290 pinned packages (6.6 GB) into $VENV; one to a few minutes"
install_packages
"$VENV/bin/python" -c 'import recipe.ekipl, ekipl_reward, ekipl_rollout'
echo "$stamp" >"$VENV/.ekipl-stamp"
say "done: source $VENV/bin/activate"
