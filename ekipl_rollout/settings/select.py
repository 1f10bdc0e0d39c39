"""`ekipl.select`: which candidates are kept."""

from dataclasses import dataclass

from ekipl_rollout.group_filter import TIES


@dataclass(frozen=True)
class SelectSettings:
    """Which of a group's candidates are kept."""

    ties: str = "policy_first"
    """Order among equal rewards: policy_first, expert_first or random. Decides most selections."""

    def problems(self) -> list[str]:
        if self.ties not in TIES:
            return [f"ekipl.select.ties={self.ties!r} is not known. Choose from {', '.join(TIES)}."]
        return []
