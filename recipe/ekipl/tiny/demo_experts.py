"""Experts for runs without keys: one HTTP process on loopback that speaks both providers' protocols.

    python -m recipe.ekipl.tiny.demo_experts --data data/synthetic --ready demo.url

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
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from recipe.ekipl.data.synthetic.problem import Problem, response
from recipe.ekipl.data.synthetic.write import problem_of


@dataclass(frozen=True)
class Persona:
    """One demo expert; the model name of a request chooses it."""

    voice: int
    """1 or 2: whose words it uses."""

    skill: float
    """Probability that an answer is right. 0.42 and 0.26 are GPT-4o's and Gemini's on TRANCE (paper, Table 1)."""

    broken: float = 0.05
    """Share of answers that miss the tag format."""

    latency: float = 0.05
    """Mean seconds an answer takes."""

    failures: float = 0.0
    """Share of requests that are refused with HTTP 503."""


PERSONAS = {"demo-a": Persona(voice=1, skill=0.42), "demo-b": Persona(voice=2, skill=0.26)}


class World:
    """The synthetic pictures by their hash, and the answers of everybody about them."""

    def __init__(self, data: Path, personas: dict[str, Persona], seed: int):
        self.personas, self.seed = personas, seed
        self.world_seed = json.loads((data / "world.json").read_text())["seed"]
        self.rows: dict[str, str] = {}
        for path in sorted(data.glob("*_jsons/*.json")):
            folder = data / "images" / ("test_images" if path.parent.name == "test_jsons" else "train_images")
            for row in json.loads(path.read_text()):
                first = row["image"] if isinstance(row["image"], str) else row["image"][0]
                self.rows[hashlib.sha256((folder / first).read_bytes()).hexdigest()] = row["id"]
        self._asked: Counter = Counter()

    def answers(self, model: str, pictures: list[bytes], text: str, count: int) -> list[str]:
        """`count` answers; the k-th time a persona is asked about a picture always gives the same ones."""
        persona = self.personas[model]
        digest = hashlib.sha256(pictures[0]).hexdigest() if pictures else ""
        row_id = self.rows.get(digest)
        problem = problem_of(row_id, self.world_seed) if row_id else None
        if problem is None or problem.question not in text:
            return [response("I cannot tell what the picture shows", "unknown")] * count
        visit = self._asked[model, digest]
        self._asked[model, digest] += 1
        words = hashlib.sha256(f"{model} {digest} {visit} {self.seed}".encode()).digest()
        rng = np.random.default_rng(list(words))
        return [self._answer(rng, persona, problem) for _ in range(count)]

    def _answer(self, rng: np.random.Generator, persona: Persona, problem: Problem) -> str:
        reasoning, answer = problem.solve(rng, persona.voice, bool(rng.random() < persona.skill))
        if rng.random() < persona.broken:
            broken = (
                f"{reasoning}. Answer: {answer}",
                f"<think> {reasoning} </think> {answer}",
                f"<think> {reasoning} <answer> {answer} </answer>",
            )
            return broken[rng.integers(3)]
        return response(reasoning, answer)


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
    """`demo-a:skill=0.9,latency=0.5` -> that persona with these values changed."""
    name, _, values = text.partition(":")
    base = PERSONAS.get(name, Persona(voice=1, skill=0.5))
    kinds = {f.name: int if f.name == "voice" else float for f in fields(Persona)}
    changed = {key: kinds[key](value) for key, value in (pair.split("=") for pair in values.split(",") if pair)}
    return name, Persona(**{**base.__dict__, **changed})


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
        help="change a persona, e.g. demo-a:skill=0.9,latency=0.5,failures=0.2,broken=0,voice=1",
    )
    args = parser.parse_args()
    world = World(args.data, {**PERSONAS, **dict(args.expert)}, args.seed)
    with socket.create_server(("127.0.0.1", args.port)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(f"demo experts {', '.join(world.personas)} at {address}, {len(world.rows)} pictures known", flush=True)
        server = uvicorn.Server(uvicorn.Config(make_app(world), log_level="warning", lifespan="off"))
        if args.ready:
            args.ready.write_text(address)
        asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
