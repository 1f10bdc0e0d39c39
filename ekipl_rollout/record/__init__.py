"""Expert answers kept on disk: an answer that arrives is written before it is used, and is not asked for again.

Reading order: key.py (how an answer is found again), database.py (the file), store.py, recorded_expert.py; then
exchange.py and upkeep.py for the command line, `python -m ekipl_rollout.record`.
"""

from ekipl_rollout.record.recorded_expert import RecordedExpert, behind_record
from ekipl_rollout.record.store import Record

__all__ = ["Record", "RecordedExpert", "behind_record"]
