"""Brings the tiny model up until it wears the format and sees well: the "pre-trained model" of the demonstration.

    python -m recipe.ekipl.tiny.base --data data/parquet --task visual_counting --out models/tiny --seed 0
    python -m recipe.ekipl.tiny.base ... --lesson train --init models/tiny --out models/tiny-expert

The first makes the policy: it is taught the `base` questions, other ones than those of the task. The second goes on
from there with the task itself (`train`) and makes a model that can serve as an expert. verl's own SFT trainer does the
learning, in rounds; after each round the model answers held-out questions of the kind it was taught, and it ends when
enough of them are right. It stops by accuracy and not by a step number, because what a tiny model learns in minutes it
learns suddenly. An interrupted bring-up goes on at the last round.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from recipe.ekipl import cpu

ROUND, MAX_STEPS = 150, 1200  # supervised steps between two looks, and in all
ENOUGH = 0.96  # share of held-out questions (greedy) that must be right
HELD_OUT = 128


def sft_command(data: Path, model: Path, work: Path, steps: int, seed: int) -> list[str]:
    """verl's SFT trainer on the CPU. fp32: bf16 is slower and coarser here."""
    overrides = [
        f"model.path={model}",
        f"model.external_lib={cpu.ENGINE_MODULE}",
        "model.use_remove_padding=False",
        "model.enable_gradient_checkpointing=False",
        "+model.override_config.attn_implementation=sdpa",
        "engine.strategy=fsdp2",
        "engine.model_dtype=fp32",
        "+engine.mixed_precision.param_dtype=fp32",
        "engine.use_torch_compile=False",
        f"data.train_files={data}",
        "data.train_batch_size=48",
        "data.micro_batch_size_per_gpu=48",
        "data.use_dynamic_bsz=False",
        "data.max_length=512",
        "data.num_workers=1",
        "optim.lr=1e-3",
        "optim.betas=[0.9,0.98]",
        "optim.lr_warmup_steps=40",
        "optim.lr_scheduler_type=constant",
        "optim.weight_decay=0.01",
        "trainer.device=cpu",
        "trainer.logger=[console]",
        f"trainer.seed={seed}",
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=1000",
        "trainer.max_ckpt_to_keep=1",
        f"trainer.default_local_dir={work}",
        "checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    ]
    return [
        sys.executable,
        "-m",
        "verl.trainer.sft_trainer",
        *overrides,
        f"hydra.run.dir={work}",
        "hydra.output_subdir=null",
    ]


def run_round(command: list[str], log: Path) -> None:
    """One round in a process of its own; its progress bar stays on the screen, everything else goes to the log."""
    rank = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    # Threads that spin at OpenMP's barriers make a step three to ten times slower when anything else runs; ones that
    # sleep cost a seventh when nothing does.
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "passive"}
    environment = {**os.environ, **cpu.environment(), **rank, **threads}
    with open(log, "ab") as output:
        done = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False)
    if done.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"verl's SFT trainer ended with status {done.returncode}; the end of {log}:\n{tail}")


def held_out_accuracy(model_dir: Path, task: str, lesson: str, seed: int) -> float:
    """Share of unseen questions of the lesson that the model answers rightly, greedily, with the paper's reward."""
    import numpy as np
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    from ekipl_reward import compute_score
    from recipe.ekipl.data.splits import splits_of
    from recipe.ekipl.data.synthetic.write import make

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


def done_steps(work: Path) -> int:
    """Steps of the last finished round; an interrupted bring-up goes on from there."""
    tracker = work / "latest_checkpointed_iteration.txt"
    return int(tracker.read_text()) if tracker.exists() else 0


def bring_up(data: Path, task: str, lesson: str, init: Path | None, out: Path, seed: int) -> dict:
    """`init` (null: random weights) -> rounds of supervised learning -> `out`, a Hugging Face folder with lesson.json."""
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
    steps, history = done_steps(work), []
    while True:
        if steps:
            trained = work / f"global_step_{steps}" / "huggingface"
            accuracy = held_out_accuracy(trained, task, lesson, seed)
            history.append({"step": steps, "accuracy": accuracy, "seconds": round(time.time() - start, 1)})
            print(f"[{out.name}] step {steps}: {accuracy:.2f} of the held-out {lesson} questions right", flush=True)
            if accuracy >= ENOUGH or steps >= MAX_STEPS:
                break
        steps += ROUND
        print(f"[{out.name}] learning: round to step {steps} of at most {MAX_STEPS}", flush=True)
        run_round(sft_command(data, init.resolve(), work, steps, seed), work / "sft.log")
    shutil.copytree(trained, out, dirs_exist_ok=True)
    result = {"task": task, "lesson": lesson, "seed": seed, "accuracy": accuracy, "steps": steps, "history": history}
    report.write_text(json.dumps(result, indent=1))
    shutil.rmtree(work)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that `recipe.ekipl.data reason_rft` wrote")
    parser.add_argument("--task", default="visual_counting")
    parser.add_argument("--lesson", choices=("base", "train"), default="base", help="which questions are taught")
    parser.add_argument("--init", type=Path, help="Hugging Face folder to start from; random weights without it")
    parser.add_argument("--out", type=Path, required=True, help="where the Hugging Face folder goes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data = (args.data / args.task / f"{args.lesson}.sft.parquet").resolve()
    result = bring_up(data, args.task, args.lesson, args.init, args.out.resolve(), args.seed)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
