"""An expert instead of a model: its record, its budget, and what makes it another one."""

import json
from dataclasses import replace

import pytest

from ekipl_rollout.bounds.ledger import read_spent
from ekipl_rollout.settings import BoundsSettings, EkiplSettings, ExampleSettings, ExpertSettings, RecordSettings
from recipe.ekipl.evaluate.asked import expert_identity
from recipe.ekipl.evaluate.on_expert import ExpertAnswerer
from tests.recipe_ekipl.evaluate_helpers import evaluate_into, write_rows


@pytest.fixture
def chat_server(serve):
    """A chat server that numbers its replies and fails the first request for row 2.

    With 413, not 400: a 400 that comes before any reply has taken n=2 reads as a refusal of n, and row 2 is asked again.
    """
    asked: list[dict] = []

    async def app(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        asked.append(request)
        text = json.dumps(request["messages"])
        failing = "number 2" in text and sum("number 2" in json.dumps(r["messages"]) for r in asked) == 1
        choices = [
            {
                "index": i,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"<answer>{len(asked)}.{i}</answer>"},
            }
            for i in range(request["n"])
        ]
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
        reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 10 * request["n"], "total_tokens": 0}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 413 if failing else 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"error": "no"} if failing else reply).encode()})

    return serve(app), asked


def test_an_expert_is_evaluated_and_only_what_it_failed_to_give_is_asked_for_again(tmp_path, chat_server):
    url, asked = chat_server
    prompts = [{"prompt": [{"role": "user", "content": f"number {i}"}], "images": []} for i in range(4)]
    split = write_rows(tmp_path / "rows.parquet", *prompts)
    expert = ExpertSettings("e", "openai", "m", base_url=f"{url}/v1", dollars_per_million_output=1e4)
    whole = EkiplSettings(record=RecordSettings(path=str(tmp_path / "records.sqlite")))

    first = ExpertAnswerer(whole, expert)
    file = evaluate_into(tmp_path / "out", split, first, samples=2, size=100)
    first.close()
    assert len(asked) == 4
    assert len(file.answers) == 6
    assert not (tmp_path / "out/answers.jsonl").exists()

    second = ExpertAnswerer(whole, expert)
    file = evaluate_into(tmp_path / "out", split, second, samples=2, size=100)
    second.close()
    assert len(asked) == 5
    lines = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert [(line["row"], line["sample"]) for line in lines] == [(f"r{i}", s) for i in range(4) for s in range(2)]
    assert lines[0]["dollars"] == pytest.approx(10 * 1e4 / 1e6)

    third = ExpertAnswerer(whole, expert)
    evaluate_into(tmp_path / "out", split, third, samples=3, size=100)
    third.close()
    assert [request["n"] for request in asked[5:]] == [1] * 4  # the record gives the two that it has


def test_an_evaluation_of_an_expert_keeps_to_the_budget(tmp_path, chat_server):
    url, asked = chat_server
    prompts = [{"prompt": [{"role": "user", "content": f"question {i}"}], "images": []} for i in range(4)]
    split = write_rows(tmp_path / "rows.parquet", *prompts)
    price = {"dollars_per_million_output": 1e4, "max_tokens": 10}  # ten cents an answer
    expert = ExpertSettings("e", "openai", "m", base_url=f"{url}/v1", max_in_flight=1, **price)
    ledger = tmp_path / "ledger.sqlite"
    bounds = BoundsSettings(max_dollars=0.5, ledger=str(ledger))
    whole = EkiplSettings(record=RecordSettings(path=str(tmp_path / "records.sqlite")), bounds=bounds)

    answerer = ExpertAnswerer(whole, expert)
    file = evaluate_into(tmp_path / "out", split, answerer, samples=2, size=100)
    answerer.close()
    assert (len(asked), len(file.answers)) == (2, 4)
    assert read_spent(ledger) == 400_000_000


def test_what_an_expert_is_told_beside_the_question_decides_its_answers():
    plain = ExpertSettings("e", "openai", "m", base_url="http://127.0.0.1:1/v1")
    others = [{"extra": {"reasoning_effort": "low"}}, {"examples": (ExampleSettings("1 + 1?", "2"),)}, {"model": "n"}]
    identities = [expert_identity(replace(plain, **other)) for other in others]
    assert all(identity != expert_identity(plain) for identity in identities)
    assert expert_identity(replace(plain, max_in_flight=1, name="f")) == expert_identity(plain)
