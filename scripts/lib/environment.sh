# The repository's Python on the PATH; setup.sh makes it where it is missing. Sourced from the root of the repository.
bash scripts/setup.sh
export PATH="$(cd "${EKIPL_VENV:-.venv}" && pwd)/bin:$PATH"
export PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error
