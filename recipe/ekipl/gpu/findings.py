"""What a check found: a number, and the most it may be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    check: str
    what: str
    value: float
    bound: float | None
    """None: for information."""

    @property
    def passed(self) -> bool:
        return self.bound is None or self.value <= self.bound  # never for NaN

    def as_line(self) -> str:
        if self.bound is None:
            return f"  {'':6} {self.what:62} {self.value:9.2e}"
        verdict = "ok" if self.passed else "WRONG"
        return f"  {verdict:6} {self.what:62} {self.value:9.2e}  (at most {self.bound:.0e})"
