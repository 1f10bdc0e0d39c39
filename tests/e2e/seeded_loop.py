"""An agent loop of somebody else's, in which each session samples with a seed of its own: two runs say the same."""

import zlib

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class SeededLoop(SingleTurnAgentLoop):
    """verl's own, with a seed from row and session."""

    async def run(self, sampling_params, **kwargs):
        seed = zlib.crc32(f"{kwargs['index']} {kwargs['session_id']}".encode())
        return await super().run({**sampling_params, "seed": seed}, **kwargs)
