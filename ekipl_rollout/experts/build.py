"""The experts of a run, ready to be asked."""

from collections.abc import Callable, Sequence

from ekipl_rollout.bounds import Bounds
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.experts.chat_server import ChatServerExpert
from ekipl_rollout.experts.gemini import GeminiExpert
from ekipl_rollout.experts.live import LiveExpert
from ekipl_rollout.record import behind_record
from ekipl_rollout.settings import ExpertSettings, RecordSettings

EXPERTS: dict[str, Callable[..., LiveExpert]] = {"openai": ChatServerExpert, "gemini": GeminiExpert}
"""`kind` -> class, built with (settings, bounds). The SDKs are imported when an expert is built, not before."""


def build_experts(
    experts: Sequence[ExpertSettings], record: RecordSettings, bounds: Bounds | None = None
) -> list[Expert]:
    """The configured experts, behind their record. Must run in the event loop that will ask them."""
    if record.mode == "off" or not experts:
        return [EXPERTS[settings.kind](settings, bounds) for settings in experts]
    return behind_record(experts, record, lambda settings: EXPERTS[settings.kind](settings, bounds))
