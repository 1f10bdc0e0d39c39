"""The one retry policy; the SDKs' own are off.

Exponential back-off with full jitter: the wait before retry k is uniform in 0 ... min(longest, first * 2**(k-1)),
which spreads the retries of many workers best (Brooker, "Exponential Backoff And Jitter", AWS 2015). A provider that names a
time is obeyed. A wait that would end after the deadline is not begun: the failure is known now.
"""

import random

from ekipl_rollout.errors import ExpertError
from ekipl_rollout.settings import RetrySettings


def wait_before_retry(
    policy: RetrySettings, error: ExpertError, failed: int, left_s: float | None, rng: random.Random
) -> float | None:
    """Seconds to wait before the request is sent again, or None to give up.

    `failed` is how many attempts have failed (1 or more), `left_s` how many seconds are left before nobody listens any
    more (None: no end).

    Example:
        first_wait_s=0.5, the third attempt failed with 503 -> between 0 and 2 seconds
    """
    if failed >= policy.attempts or not error.failure.may_pass:
        return None
    wait = rng.uniform(0.0, min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** (failed - 1)))
    if error.retry_after_s is not None:
        if error.retry_after_s > policy.longest_retry_after_s:
            return None
        wait += error.retry_after_s  # not before; and not all workers in the same instant
    return wait if left_s is None or wait < left_s else None
