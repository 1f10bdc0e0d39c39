"""The contracts import verl, vLLM and Ray for a CPU: the platform must be chosen before any of them is imported."""

import os

from recipe.ekipl import cpu

if cpu.wanted():
    os.environ.update(cpu.environment())
