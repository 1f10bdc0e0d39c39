#!/usr/bin/env bash
# Builds the wheel, installs it alone into a clean environment, and uses it there: no verl, no torch, no repository.
#
#   bash scripts/check_wheel.sh    # about half a minute; a package index must be at hand for what the wheel depends on
#
# PYTHON   interpreter with pip, setuptools and venv (python3)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# from a copy: setuptools would leave build/ and *.egg-info here, and an old build/ would get into the wheel
mkdir "$work/source"
cp -r pyproject.toml README.md LICENSE ekipl_reward ekipl_rollout recipe "$work/source/"
"$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/dist" "$work/source"
wheel=$(ls "$work"/dist/*.whl)
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"

cd "$work"  # nothing of the repository may be importable
"$work/venv/bin/python" - "$OLDPWD" <<'PY'
import importlib.resources as resources
import importlib.util
import sys

import ekipl_reward, ekipl_rollout, recipe.ekipl
from ekipl_rollout.errors import Lacking, SettingsError
from ekipl_rollout.settings import EkiplSettings

assert all(sys.argv[1] not in str(module.__path__) for module in (ekipl_reward, ekipl_rollout, recipe.ekipl))
assert importlib.util.find_spec("verl") is None and importlib.util.find_spec("torch") is None
reward = ekipl_reward.compute_score("clevr_math", "<think>two and one</think>\n<answer>3</answer>", "3")
assert reward["score"] == 2.0, reward
experts = [{"name": "e", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}]
assert EkiplSettings.from_config({"experts": experts}, check=False).num_candidates == 16
try:  # the SDKs are an extra, and that is said
    EkiplSettings.from_config({"experts": experts})
except SettingsError as error:
    assert [type(problem) for problem in error.problems] == [Lacking] and "openai" in str(error), error
else:
    raise AssertionError("nobody misses the SDKs")
for package in ("ekipl_reward", "ekipl_rollout", "recipe.ekipl"):
    assert (resources.files(package) / "py.typed").is_file(), package
for file in ("config/ekipl_trainer.yaml", "config/plugin/ekipl.yaml", "config/experts/paper.yaml", "hardware/known_models.yaml"):
    assert (resources.files("recipe.ekipl") / file).is_file(), file
assert (resources.files("ekipl_rollout") / "settings/models.yaml").is_file()
PY
echo "the wheel installs alone and works: $(basename "$wheel")"
