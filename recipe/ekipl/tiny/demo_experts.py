"""Experts for runs without keys: one HTTP process on loopback that speaks both providers' protocols.

    python -m recipe.ekipl.tiny.demo_experts --data data/synthetic --ready demo.url
    python -m recipe.ekipl.tiny.demo_experts ... --expert demo-a:skill=0.9,spatial_transformation=0.3,latency=2 --expert demo-b:failures=0.2

It gets the pictures and the question over the wire, as a real model does, finds the picture among those of the
synthetic world and answers with a configured skill, phrasing, latency and failure rate. It is no model: it knows the
world. A picture that it has never seen gets an honest "I cannot tell".
"""

import argparse
import asyncio
import base64
import hashlib
import json
import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from recipe.ekipl.data.splits import TASKS
from recipe.ekipl.data.synthetic.problem import VOICES, Problem, response
from recipe.ekipl.data.synthetic.write import problem_of, split_of
from recipe.ekipl.tiny.serving import end_with_parent


@dataclass(frozen=True)
class Persona:
    """One demo expert; the model name of a request chooses it."""

    voice: int
    """1 or 2: whose words it uses."""

    skill: float
    """Probability that an answer is right. 0.42 and 0.26 are GPT-4o's and Gemini's on TRANCE (paper, Table 1)."""

    by_task: Mapping[str, float] = field(default_factory=dict)
    """Skill at a task, where it is another one."""

    broken: float = 0.05
    """Share of answers that miss the tag format."""

    latency: float = 0.05
    """Mean seconds an answer takes."""

    failures: float = 0.0
    """Share of requests that are refused with HTTP 503."""


PERSONAS = {"demo-a": Persona(voice=1, skill=0.42), "demo-b": Persona(voice=2, skill=0.26)}


class World:
    """The synthetic rows by the hash of their pictures, and the answers of everybody about them."""

    def __init__(self, data: Path, personas: dict[str, Persona], seed: int):
        self.personas, self.seed = personas, seed
        self.world_seed = json.loads((data / "world.json").read_text())["seed"]
        self.rows: dict[str, list[tuple[str, str]]] = defaultdict(list)
        """(question, row id) of each row with these pictures: a small world draws the same angle more than once."""
        for path in sorted(data.glob("*_jsons/*.json")):
            folder = data / "images" / ("test_images" if path.parent.name == "test_jsons" else "train_images")
            for row in json.loads(path.read_text()):
                names = [row["image"]] if isinstance(row["image"], str) else row["image"]
                digest = digest_of((folder / name).read_bytes() for name in names)
                self.rows[digest].append((row["problem"], row["id"]))
        self._asked: Counter = Counter()

    def answers(self, model: str, pictures: list[bytes], text: str, count: int) -> list[str]:
        """`count` answers; the k-th time a persona is asked about a picture always gives the same ones."""
        persona, digest = self.personas[model], digest_of(pictures)
        asked = [row for row in self.rows.get(digest, ()) if row[0] in text]
        if not asked:
            return [response("I cannot tell what the picture shows", "unknown")] * count
        _, row_id = max(
            asked, key=lambda row: len(row[0])
        )  # "How large ...?" is also the beginning of "How large ...? A 30 B 60"
        problem = problem_of(row_id, self.world_seed)
        visit = self._asked[model, row_id]
        self._asked[model, row_id] += 1
        words = hashlib.sha256(f"{model} {digest} {visit} {self.seed}".encode()).digest()
        rng = np.random.default_rng(list(words))
        skill = persona.by_task.get(split_of(row_id)[0].task, persona.skill)
        return [self._answer(rng, persona, skill, problem) for _ in range(count)]

    def _answer(self, rng: np.random.Generator, persona: Persona, skill: float, problem: Problem) -> str:
        reasoning, answer = problem.solve(rng, persona.voice, bool(rng.random() < skill))
        if rng.random() < persona.broken:
            broken = (
                f"{reasoning}. Answer: {answer}",
                f"<think> {reasoning} </think> {answer}",
                f"<think> {reasoning} <answer> {answer} </answer>",
            )
            return broken[rng.integers(3)]
        return response(reasoning, answer)


def digest_of(pictures: Iterable[bytes]) -> str:
    """sha256 of all of them, in order."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(picture)
    return found.hexdigest()


async def pause(persona: Persona) -> bool:
    """Takes the persona's time; True when this request shall fail."""
    rng = np.random.default_rng()
    await asyncio.sleep(float(rng.gamma(4.0, persona.latency / 4.0)) if persona.latency > 0 else 0.0)
    return bool(rng.random() < persona.failures)


async def chat_completions(request: Request) -> JSONResponse:
    """OpenAI: POST /v1/chat/completions."""
    body, world = await request.json(), request.app.state.world
    if body["model"] not in world.personas:
        return JSONResponse({"error": {"message": f"no model {body['model']}", "code": "model_not_found"}}, 404)
    pictures, texts = [], []
    for part in (
        p
        for m in body["messages"]
        for p in (m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}])
    ):
        if part["type"] == "image_url":
            pictures.append(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
        else:
            texts.append(part["text"])
    if await pause(world.personas[body["model"]]):
        return JSONResponse({"error": {"message": "overloaded", "code": "overloaded"}}, 503)
    answers = world.answers(body["model"], pictures, " ".join(texts), int(body.get("n") or 1))
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for i, text in enumerate(answers)
    ]
    asked, said = 10 + 9 * len(pictures), sum(len(text.split()) for text in answers)
    usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    reply = {
        "id": "demo",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": choices,
        "usage": usage,
    }
    return JSONResponse(reply)


async def generate_content(request: Request) -> JSONResponse:
    """Gemini: POST /v1beta/models/{model}:generateContent."""
    model, world = request.path_params["model"].removesuffix(":generateContent"), request.app.state.world
    if model not in world.personas:
        return JSONResponse({"error": {"code": 404, "message": f"no model {model}", "status": "NOT_FOUND"}}, 404)
    body: dict[str, Any] = await request.json()
    parts = [part for content in body["contents"] for part in content["parts"]]
    pictures = [base64.urlsafe_b64decode(p["inlineData"]["data"]) for p in parts if "inlineData" in p]
    text = " ".join(p["text"] for p in parts if "text" in p)
    if await pause(world.personas[model]):
        return JSONResponse({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}, 503)
    answers = world.answers(model, pictures, text, int(body.get("generationConfig", {}).get("candidateCount") or 1))
    candidates = [
        {"index": i, "finishReason": "STOP", "content": {"role": "model", "parts": [{"text": text}]}}
        for i, text in enumerate(answers)
    ]
    usage = {"promptTokenCount": 10, "candidatesTokenCount": sum(len(text.split()) for text in answers)}
    return JSONResponse({"candidates": candidates, "modelVersion": model, "usageMetadata": usage})


async def models(request: Request) -> JSONResponse:
    listed = [{"id": name, "object": "model", "owned_by": "demo"} for name in request.app.state.world.personas]
    return JSONResponse({"object": "list", "data": listed})


def make_app(world: World) -> Starlette:
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1beta/models/{model:path}", generate_content, methods=["POST"]),
        ]
    )
    app.state.world = world
    return app


def parse_persona(text: str) -> tuple[str, Persona]:
    """`demo-a:skill=0.9,latency=0.5,structure_perception=0.7` -> that persona with these values changed.

    Raises argparse.ArgumentTypeError for what no persona has.
    """
    name, _, values = text.partition(":")
    changed = asdict(PERSONAS.get(name, Persona(voice=1, skill=0.5)))
    known = [f.name for f in fields(Persona) if f.name != "by_task"]
    for pair in filter(None, values.split(",")):
        key, _, value = pair.partition("=")
        if key not in known and key not in TASKS:
            raise argparse.ArgumentTypeError(f"{key!r} is not known. Choose from {', '.join([*known, *TASKS])}.")
        try:
            number = int(value) if key == "voice" else float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{key}={value!r} is no number.") from None
        (changed["by_task"] if key in TASKS else changed)[key] = number
    if not 0 <= changed["voice"] < VOICES:
        raise argparse.ArgumentTypeError(f"voice={changed['voice']} must be 0 ... {VOICES - 1}.")
    return name, Persona(**changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that recipe.ekipl.data.synthetic.write made")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ready", type=Path, help="file that gets the address once the server listens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--expert",
        action="append",
        type=parse_persona,
        default=[],
        metavar="NAME:key=value,...",
        help="change a persona: skill=0.9, the same for a task (spatial_transformation=0.3), latency=0.5, failures=0.2, broken=0, voice=1",
    )
    parser.add_argument("--end-with-parent", action="store_true", help="end when the program that started this is gone")
    args = parser.parse_args()
    if args.end_with_parent:
        end_with_parent()
    world = World(args.data, {**PERSONAS, **dict(args.expert)}, args.seed)
    with socket.create_server(("127.0.0.1", args.port)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(
            f"demo experts {', '.join(world.personas)} at {address}, {sum(map(len, world.rows.values()))} questions known",
            flush=True,
        )
        server = uvicorn.Server(uvicorn.Config(make_app(world), log_level="warning", lifespan="off"))
        if args.ready:
            args.ready.write_text(address)
        asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
