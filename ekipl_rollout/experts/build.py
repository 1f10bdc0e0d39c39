"""The experts of a run, ready to be asked."""

import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache

from ekipl_rollout.bounds import Bounds
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.experts.chat_server import ChatServerExpert
from ekipl_rollout.experts.gemini import GeminiExpert
from ekipl_rollout.experts.live import LiveExpert
from ekipl_rollout.record import behind_record
from ekipl_rollout.settings import ExpertSettings, RecordSettings

EXPERTS: dict[str, Callable[..., LiveExpert]] = {"openai": ChatServerExpert, "gemini": GeminiExpert}
"""`kind` -> class, built with (settings, bounds). The SDKs are imported when an expert is built, not before."""


@lru_cache(maxsize=16)
def expert_class(kind: str) -> Callable[..., LiveExpert]:
    """The class of a `kind`: one of ours, or one of your own by its dotted name (docs/plug_in.md).

    Raises ImportError, AttributeError, ValueError or TypeError when there is none.
    """
    if kind in EXPERTS:
        return EXPERTS[kind]
    module, _, name = kind.rpartition(".")
    found = getattr(importlib.import_module(module), name)  # ValueError for a name without a module
    if not (isinstance(found, type) and issubclass(found, LiveExpert)):
        raise TypeError(f"{found!r} is no subclass of ekipl_rollout.experts.live.LiveExpert")
    return found


def build_experts(
    experts: Sequence[ExpertSettings], record: RecordSettings, bounds: Bounds | None = None
) -> list[Expert]:
    """The configured experts, behind their record. Must run in the event loop that will ask them."""
    if record.mode == "off" or not experts:
        return [expert_class(settings.kind)(settings, bounds) for settings in experts]
    return behind_record(experts, record, lambda settings: expert_class(settings.kind)(settings, bounds))
