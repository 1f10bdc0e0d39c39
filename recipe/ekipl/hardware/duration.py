"""How long a run takes, roughly, with every assumption beside it.

The anchor is EasyR1's published baseline: Qwen2.5-VL-7B, GRPO on Geometry3k, 8 H100: 1600 to 2000 tokens a second and GPU over
the whole step (https://github.com/hiyouga/EasyR1/blob/main/assets/baselines.md). It is scaled by the number of parameters and
by the GPU's dense bfloat16 speed. None of it was measured with this recipe.
"""

from dataclasses import dataclass

from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl.plan import Plan

ANCHOR_TOKENS_PER_S, ANCHOR_PARAMETERS, ANCHOR_TFLOPS = 1800.0, 8.29e9, 989.0

TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100": 989.0,
    "H800": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
}
"""Dense bfloat16, from NVIDIA's data sheets."""

ASSUMED_GPU = "A100"
"""The paper's, where the machine at hand has none."""

TEXT_TOKENS, PICTURE_TOKENS, RESPONSE_SHARE = 100, 600, 0.5
"""Assumed: tokens of a question's text and of each of its pictures (Reason-RFT: at most 612), and the share of
data.max_response_length that an answer uses."""


@dataclass(frozen=True)
class Duration:
    compute_h: float
    """Rollout, log-probabilities and update."""

    experts_h: float
    """Least time that the experts' requests_per_minute allow; the larger of the two is the run's."""

    assumptions: str

    @property
    def hours(self) -> float:
        return max(self.compute_h, self.experts_h)


def estimate(
    plan: Plan, settings: EkiplSettings, parameters: int, gpus: int, gpu_name: str, response_tokens: int
) -> Duration:
    name = next((known for known in TFLOPS if known in gpu_name), ASSUMED_GPU)
    speed = ANCHOR_TOKENS_PER_S * ANCHOR_PARAMETERS / parameters * TFLOPS[name] / ANCHOR_TFLOPS
    rows = plan.steps * plan.batch * max(plan.num_kept, plan.num_answers)
    prompt = TEXT_TOKENS + PICTURE_TOKENS * plan.pictures
    tokens = rows * (prompt + RESPONSE_SHARE * response_tokens)
    per_expert = plan.requests / max(plan.num_experts, 1)
    slowest = min((e.requests_per_minute for e in settings.experts if e.requests_per_minute), default=None)
    return Duration(
        compute_h=tokens / (speed * gpus) / 3600,
        experts_h=per_expert / slowest / 60 if slowest else 0.0,
        assumptions=f"{gpus} x {name}, {speed:.0f} tokens a second and GPU, {prompt} prompt tokens, "
        f"answers of {RESPONSE_SHARE * response_tokens:.0f} tokens, no wait for slow experts, no validation",
    )
