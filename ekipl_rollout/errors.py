"""What can go wrong, named after the boundary that was crossed. All of it pickles: Ray carries it between processes.

EkiplError
├── SettingsError (also ValueError)   a run that could never work; raised before anything starts
├── RecordError                       a record of answers cannot be used, or lacks an answer in replay
├── LedgerError (bounds/ledger.py)    money cannot be written down, so none is spent
└── ExpertError                       one request to an expert failed; the group goes on (`failure` says how)
"""

from enum import Enum


class EkiplError(Exception):
    """Base of everything this package raises."""


class SettingsError(EkiplError, ValueError):
    """One or more settings cannot work. `problems` holds a sentence for each."""

    def __init__(self, *problems: str):
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        return f"{len(self.problems)} settings cannot work:\n" + "\n".join(f"  - {text}" for text in self.problems)


class Lacking(str):
    """A problem that is this machine's and not the settings': a key, a package, a file or a GPU that is not here. The run can
    be planned without it."""


class RecordError(EkiplError):
    """The record of expert answers."""


class Failure(str, Enum):
    """How a request to an expert failed. The names are metric names."""

    UNREACHABLE = "unreachable"  # refused, reset, DNS, half a body
    TIMED_OUT = "timed_out"
    RATE_LIMITED = "rate_limited"  # 429
    SERVER_ERROR = "server_error"  # 5xx
    BAD_REPLY = "bad_reply"  # 200 with something else than an answer
    UNAUTHORIZED = "unauthorized"  # 401, 403
    NOT_FOUND = "not_found"  # 404: wrong model or address
    OUT_OF_QUOTA = "out_of_quota"
    BAD_REQUEST = "bad_request"  # any other 4xx
    BLOCKED = "blocked"  # the provider's content filter refused the prompt
    NOT_RECORDED = "not_recorded"  # replay, and the record lacks the answer
    RECORD_UNUSABLE = "record_unusable"  # the record cannot be read or written; nobody was asked
    OVER_BUDGET = "over_budget"  # asking could cost more than is left; nobody was asked
    RESTING = "resting"  # the expert's breaker is open; nobody was asked
    LATE = "late"  # it came, or will come, after the group went on without it

    @property
    def may_pass(self) -> bool:
        """True when the same request can succeed a moment later."""
        return self in _PASSING


_PASSING = frozenset(
    {Failure.UNREACHABLE, Failure.TIMED_OUT, Failure.RATE_LIMITED, Failure.SERVER_ERROR, Failure.BAD_REPLY}
)


class ExpertError(EkiplError):
    """A request failed. Flat on purpose: SDK exceptions carry request headers, that is the API key."""

    def __init__(
        self,
        failure: Failure,
        message: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        may_be_billed: bool = False,
        retries: int = 0,
    ):
        super().__init__(failure, message, status, retry_after_s, may_be_billed, retries)
        self.failure = failure
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.may_be_billed = may_be_billed
        """True when the provider got the request and may have worked on it: reset, timeout, an unreadable reply."""

        self.retries = retries
        """Requests that failed before this one."""

    def __str__(self) -> str:
        status = f" (HTTP {self.status})" if self.status else ""
        return f"{self.failure.value}{status}: {self.message}"
