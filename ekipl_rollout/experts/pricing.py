"""What an answer costs by the configured prices."""

from ekipl_rollout.settings import ExpertSettings


def share_cost(settings: ExpertSettings, input_tokens: int, output_tokens: int, answers: int) -> tuple[int, float]:
    """(output tokens, dollars) of each of the `answers` of one request: providers bill requests, not answers."""
    dollars = (
        input_tokens * settings.dollars_per_million_input + output_tokens * settings.dollars_per_million_output
    ) / 1e6
    return output_tokens // max(answers, 1), dollars / max(answers, 1)
