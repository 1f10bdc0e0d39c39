# The repository's Python on the PATH; setup.sh makes it where it is missing. Sourced from the root of the repository.
bash scripts/setup.sh
ROOT=$PWD
source scripts/lib/venv.sh
export PATH="$(cd "$VENV" && pwd)/bin:$PATH"
export PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error
