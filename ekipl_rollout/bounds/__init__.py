"""What all workers share: rates, requests in flight, a budget in dollars, and a breaker for each expert.

rates.py, backoff.py, breaker.py (together: lane.py) and budget.py decide, with the caller's clock and without a loop.
ledger.py and journal.py write money down before it is spent. governor.py lets requests out in one process; desk.py serves
workers in other processes, and on_verl/shared_bounds.py makes a Ray actor of it.
"""

from ekipl_rollout.bounds.base import Bounds, Permit, Unbounded

__all__ = ["Bounds", "Permit", "Unbounded"]
