"""Brings the tiny model up until it wears the format and sees well: the "pre-trained model" of the demonstration.

    python -m recipe.ekipl.tiny.base --data data/parquet --task visual_counting --out models/tiny --seed 0
    python -m recipe.ekipl.tiny.base ... --lesson train --init models/tiny --out models/tiny-expert
    python -m recipe.ekipl.tiny.base ... --lesson train --init models/tiny --out models/tiny-fair --enough 0.4 --round 10

The first makes the policy: it is taught the `base` questions, other ones than those of the task. The second goes on
from there with the task itself (`train`) and makes a model that can serve as an expert; the third stops earlier and makes a
policy that is already fair at the task. Several tasks are taught together. verl's own SFT trainer does the learning; every
round of steps the model answers held-out questions of the kind it is taught, while it learns on, and it ends when enough of
each task are right. It stops by accuracy and not by a step number, because what a tiny model learns in minutes it
learns suddenly. An interrupted bring-up goes on at the last round.
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from recipe.ekipl.data.splits import TASKS
from recipe.ekipl.sft import learn, read_config

ROUND, MAX_STEPS = 100, 1200  # supervised steps between two looks, and in all, for each task
BATCH = 48
ENOUGH = 0.95  # share of held-out questions (greedy) that must be right
HELD_OUT = 128  # of each task


@dataclass(frozen=True)
class Lessons:
    """What is taught, and until when."""

    tasks: tuple[str, ...]
    lesson: str = "base"
    """`base`: what the policy can do from the start; `train`: the skill."""

    enough: float = ENOUGH
    round: int = ROUND
    most: int | None = None
    """Steps at most; None: MAX_STEPS for each task."""

    decay: bool = False
    """Whether the learning rate falls to a tenth by the last step. Several tasks together need it: at a constant one each
    of them comes and goes."""

    @property
    def max_steps(self) -> int:
        return self.most or MAX_STEPS * len(self.tasks)


def lesson_settings(lessons: Lessons, files: list[Path], model: Path, work: Path, seed: int) -> list[str]:
    """Of recipe.ekipl.sft: larger batches and larger steps than the baselines, because it starts from nothing."""
    ranks = min(2, os.cpu_count() or 1)  # two with a thread each take a quarter less time than one with two threads
    return [
        f"model.path={model}",
        f"data.train_files=[{','.join(map(str, files))}]",
        f"run_dir={work}",
        f"data.train_batch_size={BATCH}",
        f"data.micro_batch_size_per_gpu={BATCH // ranks}",
        "data.num_workers=0",  # as many processes as cores already
        f"trainer.n_gpus_per_node={ranks}",
        "engine.fsdp_size=1",  # each rank holds the whole model, which is small
        "optim.lr=1e-3",
        "optim.lr_warmup_steps=40",
        f"trainer.seed={seed}",
        f"trainer.total_training_steps={lessons.max_steps}",
        f"trainer.save_freq={lessons.round}",
        "trainer.max_ckpt_to_keep=3",  # one is being looked at
        *(("optim.lr_scheduler_type=cosine", "optim.min_lr_ratio=0.1") if lessons.decay else ()),
    ]


def held_out_accuracy(model_dir: Path, task: str, lesson: str, seed: int) -> float:
    """Share of unseen questions of the lesson that the model answers rightly, greedily, with the paper's reward."""
    import numpy as np
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    from ekipl_reward import compute_score
    from recipe.ekipl.data.splits import splits_of
    from recipe.ekipl.data.synthetic.write import make

    torch.set_num_threads(1)  # the training goes on beside it
    split = next(s for s in splits_of(task) if s.name == lesson)
    rng = np.random.default_rng([seed, 999])
    problems = [make(split, rng) for _ in range(HELD_OUT)]
    processor = AutoProcessor.from_pretrained(model_dir)
    processor.tokenizer.padding_side = "left"
    model = Qwen2VLForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32).eval()
    asks = [
        [{"role": "user", "content": [*({"type": "image"} for _ in p.images), {"type": "text", "text": p.question}]}]
        for p in problems
    ]
    prompts = [processor.apply_chat_template(ask, add_generation_prompt=True, tokenize=False) for ask in asks]
    inputs = processor(text=prompts, images=[i for p in problems for i in p.images], padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    texts = processor.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    scores = [compute_score(split.data_source, text, p.answer) for text, p in zip(texts, problems, strict=True)]
    return sum(score["acc"] * score["format"] for score in scores) / len(scores)


def bring_up(rows: Path, lessons: Lessons, init: Path | None, out: Path, seed: int) -> dict:
    """`init` (None: random weights) -> rounds of supervised learning -> `out`, a Hugging Face folder with lesson.json.

    `rows`: folder of parquet files, one folder a task.
    """
    report = out / "lesson.json"
    if report.exists():
        return json.loads(report.read_text())
    work = out.with_name(out.name + ".work")
    start = time.time()
    work.mkdir(parents=True, exist_ok=True)
    if init is None:
        init = work / "random"
        if not (init / "config.json").exists():
            from recipe.ekipl.tiny.model import build

            build(init, seed)
    files = [(rows / task / f"{lessons.lesson}.sft.parquet").resolve() for task in lessons.tasks]
    history: list[dict] = []

    def enough(step: int, folder: Path) -> bool:
        found = {task: held_out_accuracy(folder, task, lessons.lesson, seed) for task in lessons.tasks}
        history.append({"step": step, "accuracy": found, "seconds": round(time.time() - start, 1)})
        told = ", ".join(f"{accuracy:.2f} of {task}" for task, accuracy in found.items())
        print(f"[{out.name}] step {step}: held-out {lessons.lesson} questions right: {told}", flush=True)
        return min(found.values()) >= lessons.enough

    print(f"[{out.name}] learning, at most {lessons.max_steps} steps, a look every {lessons.round}", flush=True)
    settings = lesson_settings(lessons, files, init.resolve(), work, seed)
    trained = learn(read_config("ekipl_sft_tiny", settings), enough)
    shutil.copytree(trained, out, dirs_exist_ok=True)
    last = history[-1]
    if min(last["accuracy"].values()) < lessons.enough:
        print(
            f"warning: {out.name} ends after {last['step']} steps below --enough {lessons.enough:g}; what is trained from it "
            "may not learn. Raise --max-steps.",
            file=sys.stderr,
        )
    result = {**asdict(lessons), "seed": seed, "accuracy": last["accuracy"], "steps": last["step"], "history": history}
    report.write_text(json.dumps(result, indent=1))
    shutil.rmtree(work)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that `recipe.ekipl.data reason_rft` wrote")
    parser.add_argument("--task", nargs="+", default=["visual_counting"], choices=TASKS)
    parser.add_argument("--lesson", choices=("base", "train"), default="base", help="which questions are taught")
    parser.add_argument("--init", type=Path, help="Hugging Face folder to start from; random weights without it")
    parser.add_argument("--out", type=Path, required=True, help="where the Hugging Face folder goes")
    parser.add_argument(
        "--enough", type=float, default=ENOUGH, help="share of each task's questions to be right (%(default)s)"
    )
    parser.add_argument("--round", type=int, default=ROUND, help="steps between two looks (%(default)s)")
    parser.add_argument("--max-steps", type=int, help=f"steps at most ({MAX_STEPS} for each task)")
    parser.add_argument("--decay", action="store_true", help="let the learning rate fall to a tenth by --max-steps")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("VERL_PLATFORM", "cpu")
    lessons = Lessons(tuple(args.task), args.lesson, args.enough, args.round, args.max_steps, args.decay)
    try:
        found = bring_up(args.data, lessons, args.init, args.out.resolve(), args.seed)
        told = ", ".join(f"{accuracy:.2f} of {task}" for task, accuracy in found["accuracy"].items())
        print(
            f"[{args.out.name}] {found['steps']} steps of supervised learning, held-out {found['lesson']} questions right: {told}"
        )
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on at the last look.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
