"""A governor to ask, and ways to ask it."""

import asyncio

import pytest

from ekipl_rollout.bounds.governor import Governor
from ekipl_rollout.errors import ExpertError
from ekipl_rollout.settings import BoundsSettings, ExpertSettings


def expert(name="gpt", **settings):
    return ExpertSettings(name, "openai", "m", "http://127.0.0.1:1/v1", **settings)


def governor(*experts, ledger=None, **settings):
    return Governor(BoundsSettings(**settings), experts or (expert(),), ledger)


async def refused(bounds, failure, name="gpt", tokens=1, dollars=0.0, step=None):
    with pytest.raises(ExpertError) as caught:
        await asyncio.wait_for(bounds.admit(name, tokens=tokens, dollars=dollars, step=step), 1)
    assert caught.value.failure is failure
    return str(caught.value)


async def waits(task):
    """True when `task` is still waiting after everything that can happen at once has happened."""
    await asyncio.sleep(0.02)
    return not task.done()


def ask(bounds, name="gpt", tokens=1, dollars=0.0, step=None):
    return asyncio.create_task(bounds.admit(name, tokens=tokens, dollars=dollars, step=step))
