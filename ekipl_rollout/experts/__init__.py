"""Who we ask. One kind, one file; this dict is the menu."""

from collections.abc import Callable, Sequence

from ekipl_rollout.errors import RecordError
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.experts.chat_server import ChatServerExpert
from ekipl_rollout.experts.gemini import GeminiExpert
from ekipl_rollout.experts.record import Record, RecordedExpert
from ekipl_rollout.settings import ExpertSettings, RecordSettings

EXPERTS: dict[str, Callable[[ExpertSettings], Expert]] = {"openai": ChatServerExpert, "gemini": GeminiExpert}
"""`kind` -> class. The SDKs are imported when an expert is built, not before."""


def build_experts(experts: Sequence[ExpertSettings], record: RecordSettings) -> list[Expert]:
    """The configured experts, behind their record. Must run in the event loop that will ask them."""
    if record.mode == "off" or not experts:
        return [EXPERTS[settings.kind](settings) for settings in experts]
    if record.path is None:
        raise RecordError("ekipl.record.path is not set and there is no run folder to keep records in")
    replay = record.mode == "replay"
    kept = Record(record.path, must_exist=replay)
    return [RecordedExpert(s, kept, None if replay else EXPERTS[s.kind](s)) for s in experts]


__all__ = ["EXPERTS", "Expert", "Record", "RecordedExpert", "build_experts"]
