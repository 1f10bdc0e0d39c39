"""The `ekipl:` block: every setting, what it does, and what cannot work. Nothing here needs verl or a network.

`EkiplSettings.from_config(config.ekipl)` reports all problems of the block at once.
"""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.group_filter import TIES

BASELINES = ("selected", "all")
STANDARD_DEVIATIONS = ("selected", "all", "none")
KINDS = ("openai", "gemini")
RECORD_MODES = ("record", "replay", "off")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

TAG_INSTRUCTION = (
    "First think about the question inside <think> and </think>, then give only the final answer inside <answer> and "
    "</answer>. Write nothing else."
)


@dataclass(frozen=True)
class ExpertSettings:
    """One expert model."""

    name: str
    """Free, unique; the `source` of its answers in reports."""

    kind: str
    """`openai` (OpenAI and every server that speaks its chat completions: only base_url differs) or `gemini`."""

    model: str
    """The provider's name of the model."""

    base_url: str | None = None
    """Address of a compatible server; null is the provider's own."""

    api_key_env: str | None = None
    """Name of the environment variable that holds the key; null for a server without keys. Keys live nowhere else."""

    temperature: float = 1.0
    top_p: float = 1.0

    max_tokens: int = 1024
    """Output tokens an answer may cost."""

    token_param: str = "max_completion_tokens"
    """What the server calls that limit; some compatible servers know only `max_tokens`."""

    max_in_flight: int = 16
    """Requests at the same time; bounds open sockets."""

    instruction: str | None = TAG_INSTRUCTION
    """Sentence added to the question, so that a model that was not trained on the tags earns the format reward."""

    dollars_per_million_input: float = 0.0
    dollars_per_million_output: float = 0.0

    def problems(self) -> list[str]:
        at = f"ekipl.experts[{self.name}]"
        found = []
        if self.kind not in KINDS:
            found.append(f"{at}.kind={self.kind!r} is not known. Choose from {', '.join(KINDS)}.")
        if self.name == "policy" or not self.name.replace("-", "_").replace(".", "_").isidentifier():
            found.append(f"{at}.name must be a short word of letters, digits, '-', '_' or '.', and not 'policy'.")
        if self.max_in_flight < 1 or self.max_tokens < 1:
            found.append(
                f"{at}: max_in_flight={self.max_in_flight} and max_tokens={self.max_tokens} must be 1 or more."
            )
        if self.api_key_env and not os.environ.get(self.api_key_env, "").strip():
            found.append(
                f"{at}.api_key_env={self.api_key_env}: this environment variable is not set or empty. "
                f"Export it in the shell that starts the run: export {self.api_key_env}=..."
            )
        return found + self._address_problems(at)

    def _address_problems(self, at: str) -> list[str]:
        if self.base_url is None:
            if self.api_key_env is None:
                return [
                    f"{at} asks the provider itself but has no api_key_env. Name the variable with the key, or set base_url."
                ]
            return []
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            return [f"{at}.base_url={self.base_url!r} is no address. Write it like http://127.0.0.1:8000/v1."]
        if address.username or address.password:
            return [f"{at}.base_url carries a user or password, which would end up in logs. Use api_key_env."]
        if address.scheme == "http" and self.api_key_env and address.hostname not in LOOPBACK:
            return [f"{at}.base_url={self.base_url!r} would send the key unencrypted. Use https://, or no api_key_env."]
        return []


@dataclass(frozen=True)
class RecordSettings:
    """Where expert answers are kept. An answer that was paid for is written before it is used."""

    mode: str = "record"
    """`record`: use what is there, ask for the rest; `replay`: never ask; `off`: always ask, keep nothing."""

    path: str | None = None
    """SQLite file on a local disk; null is `records.sqlite` in the run's folder."""

    def problems(self) -> list[str]:
        if self.mode not in RECORD_MODES:
            return [f"ekipl.record.mode={self.mode!r} is not known. Choose from {', '.join(RECORD_MODES)}."]
        if self.mode == "replay" and self.path and not os.path.exists(self.path):
            return [
                f"ekipl.record.path={self.path!r} does not exist; record.mode=replay needs a record. Run once with record.mode=record."
            ]
        return []


@dataclass(frozen=True)
class SelectSettings:
    """Which of a group's candidates are kept."""

    ties: str = "policy_first"
    """Order among equal rewards: policy_first, expert_first or random. Decides most selections."""

    def problems(self) -> list[str]:
        if self.ties not in TIES:
            return [f"ekipl.select.ties={self.ties!r} is not known. Choose from {', '.join(TIES)}."]
        return []


@dataclass(frozen=True)
class AdvantageSettings:
    """A = (R - mean) / std: over which candidates?"""

    baseline: str = "selected"
    """`selected`: mean over the kept G (paper, Eq. 1); `all`: over all N(1+M) candidates."""

    std: str = "selected"
    """`selected`, `all` or `none` (no division), likewise."""

    def problems(self) -> list[str]:
        found = []
        if self.baseline not in BASELINES:
            found.append(
                f"ekipl.advantage.baseline={self.baseline!r} is not known. Choose from {', '.join(BASELINES)}."
            )
        if self.std not in STANDARD_DEVIATIONS:
            found.append(
                f"ekipl.advantage.std={self.std!r} is not known. Choose from {', '.join(STANDARD_DEVIATIONS)}."
            )
        return found

    @property
    def is_papers(self) -> bool:
        """True when verl's own GRPO computes exactly this."""
        return self.baseline == "selected" and self.std == "selected"


@dataclass(frozen=True)
class EkiplSettings:
    """The whole block."""

    num_answers: int = 8
    """N: answers of the policy, and of each expert, to one question. G is verl's rollout.n."""

    experts: tuple[ExpertSettings, ...] = ()
    """M experts; none is plain GRPO through the same path."""

    expert_timeout_s: float = 60.0
    """Seconds to wait for the answers of one expert to one question before the group goes on without them."""

    too_long: str = "drop"
    """Expert answers of more than rollout.response_length tokens: `drop` or `cut`."""

    select: SelectSettings = field(default_factory=SelectSettings)
    advantage: AdvantageSettings = field(default_factory=AdvantageSettings)
    record: RecordSettings = field(default_factory=RecordSettings)

    run_dir: str | None = None
    """Folder of this run: groups, metrics, report. null writes no group files."""

    keep_groups: bool = True
    """Write every group's answers to run_dir/groups, compressed."""

    seed: int = 0
    """Of random ties, and of the policy's answers when they are seeded."""

    seeded_policy: bool = False
    """Sample each policy answer with a seed of its own (seed, step, row, session), so that a run can be repeated. vLLM
    samples seeded requests one by one, which costs throughput on a GPU."""

    def problems(self) -> list[str]:
        found = []
        if self.num_answers < 1:
            found.append(
                f"ekipl.num_answers={self.num_answers} must be 1 or more: it is N, the answers each source gives."
            )
        if self.expert_timeout_s <= 0:
            found.append(f"ekipl.expert_timeout_s={self.expert_timeout_s} must be more than 0 seconds.")
        if self.too_long not in ("drop", "cut"):
            found.append(f"ekipl.too_long={self.too_long!r} is not known. Choose from drop, cut.")
        names = [expert.name for expert in self.experts]
        found += [
            f"ekipl.experts: the name {name!r} is used twice." for name in sorted(set(names)) if names.count(name) > 1
        ]
        for part in (*self.experts, self.select, self.advantage, self.record):
            found += part.problems()
        return found

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None, check: bool = True) -> "EkiplSettings":
        """Reads the block (an OmegaConf node or a dict). Raises SettingsError with all its problems at once."""
        problems: list[str] = []
        settings = _read(cls, config or {}, "ekipl", problems)
        if check and settings is not None:
            problems += settings.problems()
        if problems or settings is None:
            raise SettingsError(*problems)
        return settings


_NESTED: dict[tuple[type, str], type] = {
    (EkiplSettings, "select"): SelectSettings,
    (EkiplSettings, "advantage"): AdvantageSettings,
    (EkiplSettings, "record"): RecordSettings,
}

_PLAIN: dict[str, Callable[[Any], bool]] = {
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "float": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
    "str | None": lambda v: v is None or isinstance(v, str),
}


def _read(cls: type, values: Any, at: str, problems: list[str]) -> Any:
    """An instance of `cls` from `values`; appends to `problems` and returns None when that is not possible."""
    if not isinstance(values, Mapping) and not hasattr(values, "keys"):
        problems.append(f"{at} must be a block of settings, not {values!r}.")
        return None
    known = {f.name: f for f in fields(cls)}
    taken: dict[str, Any] = {}
    before = len(problems)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            problems.append(f"{at}.{key} is no setting. {hint}")
            continue
        taken[key] = _read_field(cls, known[key], values[key], f"{at}.{key}", problems)
    for name, f in known.items():
        if name not in taken and f.default is MISSING and f.default_factory is MISSING:
            problems.append(f"{at}.{name} is missing.")
    return cls(**taken) if len(problems) == before else None


def _read_field(cls: type, spec: Any, value: Any, at: str, problems: list[str]) -> Any:
    if spec.name == "experts":
        entries = [] if value is None else list(value)
        return tuple(_read(ExpertSettings, entry, f"{at}[{i}]", problems) for i, entry in enumerate(entries))
    nested = _NESTED.get((cls, spec.name))
    if nested is not None:
        return _read(nested, value if value is not None else {}, at, problems)
    kind = spec.type if isinstance(spec.type, str) else _name_of(spec.type)
    if kind in _PLAIN and not _PLAIN[kind](value):
        problems.append(f"{at}={value!r} must be of type {kind}.")
    return value


def _name_of(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
