"""What of other packages the bridge hangs on. Each check names the versions it was written for."""

import importlib.metadata
import inspect
from collections.abc import Callable, Mapping

WRITTEN_FOR = {"megatron-core": "0.16.1", "megatron-bridge": "0.3.1", "transformers": "5.9.0"}
INSTALL = "pip install --no-deps megatron-core==0.16.1 megatron-bridge==0.3.1"


class SeamError(ImportError):
    """Megatron-Bridge, Megatron-Core or transformers is missing, or no longer looks as the bridge needs it."""


def installed() -> dict[str, str]:
    """Package -> version, "missing" when it is not there."""
    found = {}
    for name in WRITTEN_FOR:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def fail(what: str) -> None:
    versions = ", ".join(f"{name} {version} (written for {WRITTEN_FOR[name]})" for name, version in installed().items())
    raise SeamError(f"Qwen2-VL on Megatron: {what}. Installed: {versions}. Install what it was written for: {INSTALL}")


def require_versions() -> None:
    """Raises SeamError when a package is missing. Other versions are let in and judged by what they look like."""
    missing = [name for name, version in installed().items() if version == "missing"]
    if missing:
        fail(f"{' and '.join(missing)} cannot be found")


def require_parameters(function: Callable, *names: str) -> None:
    """Raises SeamError unless `function` takes arguments by these names."""
    have = inspect.signature(function).parameters
    lacking = [name for name in names if name not in have]
    if lacking:
        fail(f"{function.__module__}.{function.__qualname__} no longer takes {', '.join(lacking)}")


def require_registered(bridges: Mapping[type, type]) -> None:
    """Raises SeamError unless Megatron-Bridge now answers with our bridge for each of our architectures."""
    from megatron.bridge.models.conversion.model_bridge import get_model_bridge

    for architecture, ours in bridges.items():
        found = type(get_model_bridge(architecture))
        if found is not ours:
            fail(
                f"Megatron-Bridge converts {architecture.__name__} with {found.__module__}.{found.__qualname__}, not with ours"
            )
