"""A model answers, through vLLM's offline engine, asked exactly as verl asks it in training.

Same pictures (qwen_vl_utils resizes them, as in verl's RLHFDataset), same chat template, same token ids
(verl/experimental/agent_loop, verl/workers/rollout/vllm_rollout/vllm_async_server.py): greedy accuracy is that of verl's
own validation.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ekipl_rollout.answer import AnswerStatus, Question
from ekipl_rollout.errors import SettingsError
from recipe.ekipl import cpu
from recipe.ekipl.evaluate.ask import Given, Wanted, seed_of
from recipe.ekipl.evaluate.rows import EvalRow

STATUS = {"stop": AnswerStatus.FINISHED, "length": AnswerStatus.CUT_AT_LENGTH}
TOO_LONG = "prompt_too_long"
TOO_LONG_SAYS = ("maximum context length", "maximum model length")  # vLLM 0.24, of the text and with its pictures


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = -1
    max_tokens: int = 768
    seed: int = 0


@dataclass(frozen=True)
class Engine:
    """How the model is loaded."""

    dtype: str = "auto"
    """`auto`: float32 on a CPU, else what the model's config says."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Pictures are scaled to lie between the two; None leaves it to the data, then to the model's processor."""

    extra: dict[str, Any] = field(default_factory=dict)
    """Any other argument of vllm.LLM."""

    @property
    def resolved_dtype(self) -> str:
        return "float32" if self.dtype == "auto" and cpu.is_selected() else self.dtype


class VllmAnswerer:
    """One offline engine. Same requests in one call, same answers: nothing is remembered from call to call."""

    def __init__(self, model: Path, sampling: Sampling, engine: Engine, max_pictures: int, verbose: bool = False):
        """`max_pictures`: the most that a prompt has; vLLM reserves room for them."""
        _prepare_environment(verbose)
        from transformers import AutoProcessor
        from vllm import LLM

        self._sampling, self._engine = sampling, engine
        self._processor = AutoProcessor.from_pretrained(model)
        self._llm = LLM(str(model), **{**_arguments(engine, max_pictures), **engine.extra})

    def answer(self, wanted: Sequence[Wanted]) -> list[Given | None]:
        # an engine that remembers prefixes or pictures computes other batches than one that starts here
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()
        return self._generate(wanted)

    def _generate(self, wanted: Sequence[Wanted]) -> list[Given | None]:
        prompts: dict[str, dict[str, Any]] = {}
        for row, _ in wanted:
            prompts[row.id] = prompts.get(row.id) or prompt_of(row, self._processor, self._engine)
        try:
            outputs = self._llm.generate(
                [prompts[row.id] for row, _ in wanted],
                [self._parameters(row, sample) for row, sample in wanted],
                use_tqdm=False,
            )
        except ValueError as error:
            if not any(words in str(error) for words in TOO_LONG_SAYS):
                raise
            if len({row.id for row, _ in wanted}) == 1:
                return [Given("", TOO_LONG, 0)] * len(wanted)
            half = len(wanted) // 2  # find the row; the engine has dropped the whole call
            return [*self._generate(wanted[:half]), *self._generate(wanted[half:])]
        return [_given(output.outputs[0]) for output in outputs]

    def _parameters(self, row: EvalRow, sample: int) -> Any:
        from vllm import SamplingParams

        s = self._sampling
        seed = seed_of(s.seed, row.id, sample) if s.temperature > 0 else None
        return SamplingParams(
            temperature=s.temperature, top_p=s.top_p, top_k=s.top_k, max_tokens=s.max_tokens, seed=seed
        )

    def close(self) -> None:
        del self._llm


def prompt_of(row: EvalRow, processor: Any, engine: Engine) -> dict[str, Any]:
    """What vLLM is given: token ids with one placeholder a picture, and the pictures."""
    text = processor.apply_chat_template(chat_of(row.question), add_generation_prompt=True, tokenize=False)
    tokenizer = getattr(processor, "tokenizer", processor)
    prompt: dict[str, Any] = {"prompt_token_ids": tokenizer(text, add_special_tokens=False)["input_ids"]}
    if row.question.images:
        patch_size = getattr(getattr(processor, "image_processor", None), "patch_size", 14)
        prompt["multi_modal_data"] = {"image": pictures_of(row, engine, patch_size)}
    return prompt


def chat_of(question: Question) -> list[dict[str, Any]]:
    """The question as a chat template wants it: text alone as a string, pictures as parts."""
    chat = []
    for turn in question.messages:
        if any(isinstance(part, bytes) for part in turn.parts):
            content: Any = [
                {"type": "image"} if isinstance(part, bytes) else {"type": "text", "text": part} for part in turn.parts
            ]
        else:
            content = "".join(str(part) for part in turn.parts)
        chat.append({"role": turn.role, "content": content})
    return chat


def pictures_of(row: EvalRow, engine: Engine, patch_size: int) -> list[Any]:
    """The row's pictures, decoded and resized by the function that verl's data set uses. The engine's limits win."""
    from PIL import Image
    from qwen_vl_utils import fetch_image

    limits = {k: v for k in ("min_pixels", "max_pixels") if (v := getattr(engine, k)) is not None}
    return [
        fetch_image({"image": Image.open(io.BytesIO(content)), **given, **limits}, image_patch_size=patch_size)
        for content, given in zip(row.question.images, row.limits, strict=True)
    ]


def _given(output: Any) -> Given:
    status = STATUS.get(output.finish_reason, AnswerStatus.EMPTY)
    if not output.text and status.has_text:
        status = AnswerStatus.EMPTY
    return Given(output.text, status.value, len(output.token_ids))


def _prepare_environment(verbose: bool) -> None:
    """Before vLLM is imported anywhere in this process. What the user has set wins, except where answers depend on it."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the scheduler then sees a batch whole: its steps are the same
    if not verbose:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if cpu.is_selected():
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # share the cores with whatever else runs
        from recipe.ekipl.cpu import shims

        shims.name_vllm_cpu()


def _arguments(engine: Engine, max_pictures: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {"dtype": engine.resolved_dtype, "seed": 0, "use_tqdm_on_load": False}
    if max_pictures:
        arguments["limit_mm_per_prompt"] = {"image": max_pictures, "video": 0}
    if cpu.is_selected():
        # whole prefills only: vLLM rewinds a seeded generator after a split one, and CPU generators cannot be rewound
        arguments |= {"enforce_eager": True, "enable_chunked_prefill": False, "skip_mm_profiling": True}
    return arguments


def engine_argument(text: str) -> tuple[str, Any]:
    """`--engine name=value`, the value read as YAML."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise SettingsError(f"--engine {text!r} must look like tensor_parallel_size=2.")
    return name, yaml.safe_load(value)
