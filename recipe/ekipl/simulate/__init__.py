"""What a step costs and where it waits, without running it (docs/throughput.md).

__main__.py    `python -m recipe.ekipl.simulate`: a table and a plot for so many GPUs and such limits
world.py       what is assumed: rollout, experts, limits
model.py       the step as a discrete-event model around the run's own rates, backoff and breaker
calibrate.py   the assumptions from what was measured, and how far the model is off
"""
