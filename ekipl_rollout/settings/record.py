"""`ekipl.record`: where expert answers are kept, and whether anybody is asked at all."""

import os
from dataclasses import dataclass
from pathlib import Path

from ekipl_rollout.errors import Lacking

RECORD_MODES = ("record", "replay", "refresh", "off")
MISSING = ("shorter", "error")


@dataclass(frozen=True)
class RecordSettings:
    """Where expert answers are kept. An answer that was paid for is written before it is used."""

    mode: str = "record"
    """`record`: use what is there, ask for the rest; `replay`: never ask; `refresh`: ask for everything again, use and
    keep the new answers, and keep the old ones as history; `off`: always ask, keep nothing."""

    path: str | None = None
    """SQLite file on a disk of the machine, shared by its processes; null is `records.sqlite` in the run's folder."""

    missing: str = "shorter"
    """What a replay does about an answer that the record lacks. `shorter`: the group goes on without it, as it did if
    the expert had failed when the record was made; `error`: the run ends."""

    def problems(self) -> list[str]:
        from ekipl_rollout.record.database import opening_problem  # that package imports the settings itself

        found = []
        if self.mode not in RECORD_MODES:
            found.append(f"ekipl.record.mode={self.mode!r} is not known. Choose from {', '.join(RECORD_MODES)}.")
        if self.missing not in MISSING:
            found.append(f"ekipl.record.missing={self.missing!r} is not known. Choose from {', '.join(MISSING)}.")
        if self.mode == "replay" and self.path and not os.path.exists(self.path):
            found.append(
                Lacking(
                    f"ekipl.record.path={self.path!r} does not exist; record.mode=replay needs a record. Run once with record.mode=record."
                )
            )
        elif self.mode != "off" and self.path and (problem := opening_problem(Path(self.path))):
            found.append(f"ekipl.record.path: {problem}")
        return found
