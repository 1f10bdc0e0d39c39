"""One entry of `ekipl.experts`."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from ekipl_rollout.settings.expert_problems import problems_of
from ekipl_rollout.settings.models import KnownModel, Price, known_models

SHUTDOWN_NEAR_DAYS, PRICE_OLD_DAYS = 90, 180

TAG_INSTRUCTION = (
    "First think about the question inside <think> and </think>, then give only the final answer inside <answer> and "
    "</answer>. Write nothing else."
)


@dataclass(frozen=True)
class RetrySettings:
    """When a request that failed is sent again. The wait before retry k is drawn from
    0 ... first_wait_s * 2**(k-1)."""

    attempts: int = 4
    """Times that a request is sent at most; 1 never tries again."""

    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    longest_retry_after_s: float = 120.0
    """A provider that says "not before" (Retry-After) is obeyed up to this many seconds; beyond, the request fails."""

    def problems(self, at: str) -> Iterator[str]:
        if self.attempts < 1:
            yield f"{at}.attempts={self.attempts} must be 1 or more: the first request counts."
        if min(self.first_wait_s, self.longest_wait_s, self.longest_retry_after_s) < 0:
            yield f"{at}: first_wait_s, longest_wait_s and longest_retry_after_s must be 0 or more seconds."


@dataclass(frozen=True)
class ExampleSettings:
    """One worked example that is shown before the question."""

    question: str
    answer: str
    """In the format that is asked for."""

    pictures: tuple[str, ...] = ()
    """Files, shown before the example's question in this order."""

    @property
    def content(self) -> dict[str, Any]:
        """What it shows, with the pictures by their sha256: part of the record's key."""
        return {"question": self.question, "answer": self.answer, "pictures": [_file_sha256(p) for p in self.pictures]}


@dataclass(frozen=True)
class ExpertSettings:
    """One expert model."""

    name: str
    """Free, unique; the `source` of its answers in reports."""

    kind: str
    """`openai` (OpenAI, Azure, and every server that speaks its chat completions), `gemini` (Developer API, Vertex), or
    `offline`: answers that were imported into the record, found by model; nobody is asked. Or the dotted name of a class
    of yours."""

    model: str
    """The provider's name of the model; on Azure the name of the deployment."""

    # --- where it is -------------------------------------------------------------------------------------------------
    base_url: str | None = None
    """Address of another server than the provider's own; ends in /v1 for most servers that speak OpenAI's API."""

    api_version: str | None = None
    """openai: the `api-version` of Azure's deployments (base_url is then the resource); gemini: null is v1beta."""

    project: str | None = None
    """gemini only: Google Cloud project. Set, Vertex AI is asked, with application default credentials and no key."""

    location: str = "global"
    """Vertex AI's region."""

    api_key_env: str | None = None
    """Name of the environment variable that holds the key. Without it and without a file: a server without keys."""

    api_key_file: str | None = None
    """File that holds nothing but the key, readable by its owner only (mode 0600). Instead of api_key_env."""

    # --- what is asked for -------------------------------------------------------------------------------------------
    temperature: float = 1.0
    top_p: float = 1.0

    max_tokens: int = 1024
    """Output tokens an answer may cost, hidden reasoning included: give models that reason room for it."""

    token_param: str = "auto"
    """openai: what the server calls that limit. `auto`: max_completion_tokens for OpenAI and Azure, max_tokens for
    others, and the other name for a server that refuses the first."""

    logprobs: bool = False
    """Ask for the log-probability of each token; a model that refuses is asked without, and that is remembered."""

    token_ids: bool = False
    """openai: ask for token ids too (vLLM's `return_token_ids`); remembered likewise."""

    extra: dict[str, Any] = field(default_factory=dict)
    """More fields of the request under the provider's names, such as `reasoning_effort: low` (openai) or
    `thinking_config: {thinking_level: minimal}` (gemini)."""

    # --- how it is asked ---------------------------------------------------------------------------------------------
    instruction: str | None = TAG_INSTRUCTION
    """Sentence after the question, so that a model that was not trained on the tags earns the format reward."""

    instruction_version: str = "tags-1"
    """Free name of the instruction and examples; part of the record's key beside their text."""

    examples: tuple[ExampleSettings, ...] = ()
    """Few-shot examples, shown as earlier turns before the question."""

    # --- within which bounds -----------------------------------------------------------------------------------------
    num_answers: int | None = None
    """Answers of this expert to one question; null is ekipl.num_answers."""

    max_in_flight: int = 16
    """Requests of the whole run at the same time, and sockets of one process. Fewer while the provider says that it is busy
    (429, 503, 529)."""

    requests_per_minute: float | None = None
    """Requests of the whole run to this expert in any minute; null is no limit. Each retry is a request."""

    tokens_per_minute: float | None = None
    """Input and output tokens likewise; a request counts with the most it can use until its reply says how many it did."""

    max_dollars: float | None = None
    """The most that this expert may cost in the run; null is no limit of its own."""

    request_timeout_s: float = 120.0
    """Seconds that one request may take, first byte to last, before it counts as failed."""

    retry: RetrySettings = field(default_factory=RetrySettings)

    max_reply_bytes: int = 16_000_000
    """Bytes of a reply that are read; a longer one is cut off and fails."""

    max_pixels: int = 40_000_000
    """Width times height of a picture that is sent; a larger one fails before anything is sent."""

    # --- what it costs -----------------------------------------------------------------------------------------------
    dollars_per_million_input: float = 0.0
    """Both 0 and no day: the price of this model in settings/models.yaml, if it is there."""

    dollars_per_million_output: float = 0.0

    prices_as_of: str | None = None
    """Day on which you looked your prices up, as YYYY-MM-DD."""

    picture_tokens: int | None = None
    """The most input tokens that a picture can cost, for reservations. null: settings/models.yaml, or else 2500."""

    @property
    def known(self) -> KnownModel | None:
        return known_models().get((self.kind, self.model.removeprefix("models/")))

    def with_listed_price(self) -> "ExpertSettings":
        """With the table's price where none is stated."""
        if self._states_a_price or self.known is None:
            return self
        price = self.known.price
        return replace(
            self,
            dollars_per_million_input=price.input,
            dollars_per_million_output=price.output,
            prices_as_of=price.read,
        )

    @property
    def _states_a_price(self) -> bool:
        return bool(self.dollars_per_million_input or self.dollars_per_million_output or self.prices_as_of)

    @property
    def price(self) -> Price | None:
        """None when nobody knows it. A server of your own without keys costs nothing."""
        if self._states_a_price or self.kind == "offline" or (self.base_url and not self.has_key):
            return Price(self.dollars_per_million_input, self.dollars_per_million_output, self.prices_as_of)
        return None

    @property
    def has_key(self) -> bool:
        return bool(self.api_key_env or self.api_key_file or self.project)

    @property
    def reserved_picture_tokens(self) -> int:
        return self.picture_tokens or (self.known and self.known.picture_tokens) or 2500

    def problems(self) -> list[str]:
        return problems_of(self)

    def warnings(self, today: date | None = None) -> list[str]:
        """What will not stop a run but should be known before it: shutdown dates, missing and old prices."""
        today, at, found = today or date.today(), f"expert {self.name} ({self.model})", []
        if self.known and self.known.shutdown and (self.known.shutdown - today).days <= SHUTDOWN_NEAR_DAYS:
            days = (self.known.shutdown - today).days
            when = f"in {days} days" if days > 0 else "that is past"
            instead = f"; its provider recommends {self.known.instead}" if self.known.instead else ""
            found.append(f"{at} is switched off on {self.known.shutdown} ({when}){instead}.")
        if self.price is None:
            found.append(
                f"{at} has no known price: its dollars count as 0. Set dollars_per_million_input and _output; for one that costs nothing prices_as_of alone."
            )
        elif self.price.read and (today - date.fromisoformat(self.price.read)).days > PRICE_OLD_DAYS:
            found.append(f"{at}: its price was looked up on {self.price.read}. Look again.")
        return found


@lru_cache(maxsize=256)
def _file_sha256(path: str) -> str:
    return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
