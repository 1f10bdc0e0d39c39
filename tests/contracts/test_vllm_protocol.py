"""What our client sends is what vLLM's server reads, and the other way round: by vLLM's own classes, without a server."""

import json

import pytest

from ekipl_rollout.answer import AnswerStatus
from ekipl_rollout.experts.chat_server import read_reply
from tests.rollout.expert_helpers import client, expert_settings, picture, question

pytestmark = pytest.mark.contract


async def test_vllm_understands_every_field_that_we_send():
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    wishes = {"logprobs": True, "token_ids": True, "max_tokens": 77, "temperature": 0.7, "top_p": 0.9}
    expert = client(expert_settings("openai", "http://127.0.0.1:9", api_key_env=None, **wishes))
    prompt = expert.prepare(question(picture(), "How many?"))
    body = {"messages": json.loads(prompt.payload), **expert._fields(expert.features.wish(8))}
    await expert.close()
    unknown = set(body) - set(ChatCompletionRequest.model_fields)
    request = ChatCompletionRequest.model_validate(body)
    assert unknown == set()
    assert (request.n, request.max_tokens, request.temperature, request.top_p) == (8, 77, 0.7, 0.9)
    assert (request.logprobs, request.return_token_ids) == (True, True)
    content = list(request.messages[0]["content"])
    assert [part["type"] for part in content] == ["image_url", "text", "text"]


def test_we_read_every_field_of_vllms_reply():
    from openai._models import construct_type
    from openai.types.chat import ChatCompletion
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse

    def choice(index: int, text: str, finish: str) -> dict:
        tokens = [{"token": t, "logprob": -0.25, "bytes": None, "top_logprobs": []} for t in text]
        message = {"role": "assistant", "content": text}
        logprobs = {"content": tokens}
        ids = list(range(len(text)))
        return {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs, "token_ids": ids}

    choices = [choice(0, "abc", "stop"), choice(1, "de", "length")]
    usage = {"prompt_tokens": 46, "completion_tokens": 5, "total_tokens": 51}
    theirs = ChatCompletionResponse.model_validate({"model": "m", "choices": choices, "usage": usage})
    reply = read_reply(construct_type(type_=ChatCompletion, value=json.loads(theirs.model_dump_json())))
    assert [c.status for c in reply.choices] == [AnswerStatus.FINISHED, AnswerStatus.CUT_AT_LENGTH]
    assert [c.logprobs for c in reply.choices] == [[-0.25] * 3, [-0.25] * 2]
    assert [c.token_ids for c in reply.choices] == [[0, 1, 2], [0, 1]]
    assert (reply.input_tokens, reply.output_tokens, reply.model) == (46, 5, "m")


def test_vllm_still_scores_given_tokens_by_the_calls_that_we_make():
    from vllm.entrypoints.serve.disagg.protocol import GenerateRequest, GenerateResponse
    from vllm.entrypoints.serve.render import api_router
    from vllm.entrypoints.serve.tokenize.protocol import TokenizeCompletionRequest, TokenizeResponse

    from ekipl_rollout.experts.score import read_score

    sampling = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0}
    asked = GenerateRequest.model_validate(
        {"model": "m", "token_ids": [1, 2], "features": None, "sampling_params": sampling}
    )
    assert (asked.sampling_params.prompt_logprobs, asked.sampling_params.max_tokens) == (0, 1)
    TokenizeCompletionRequest.model_validate({"model": "m", "prompt": "a", "add_special_tokens": False})
    assert "tokens" in TokenizeResponse.model_fields
    assert any(route.path == "/v1/chat/completions/render" for route in api_router.router.routes)
    told = [None, {1: {"logprob": -0.5, "rank": 1, "decoded_token": "a"}}]
    reply = GenerateResponse.model_validate({"choices": [], "prompt_logprobs": told})
    assert read_score(json.loads(reply.model_dump_json()), 1, [1]) == -0.5
