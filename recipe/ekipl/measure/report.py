"""report.html: one self-contained page about a run. Expert text is untrusted and shown inert (autoescaped)."""

import base64
import io
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, select_autoescape

from ekipl_rollout.group_files import group_paths, read_groups
from recipe.ekipl.data.pictures import MOST_PIXELS
from recipe.ekipl.evaluate.rows import ROWS_READ_AT_ONCE, picture_bytes
from recipe.ekipl.measure.beside import beside_charts, runs_beside
from recipe.ekipl.measure.curves import Curve, draw
from recipe.ekipl.measure.summary import validation
from recipe.ekipl.plan import Plan
from recipe.ekipl.run_files import RunFiles

SHOWN_GROUPS = 6


def write_report(files: RunFiles, plan: Plan, steps: list[dict[str, Any]], summary: dict[str, Any]) -> Path:
    """Writes the page next to the metrics it is made from."""
    config = yaml.safe_load((files.root / "config.yaml").read_text())
    experts = [expert["name"] for expert in config["ekipl"]["experts"]]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    beside = runs_beside(files.root)
    page = environment.get_template("report.html").render(
        name=files.root.name,
        plan=plan,
        experts=experts,
        advantage=config["ekipl"]["advantage"],
        summary=summary,
        scores=score_table(steps, plan),
        charts=charts(steps, experts),
        beside=beside,
        beside_charts=beside_charts(beside) if len(beside) > 1 else [],
        groups=some_groups(files, config),
    )
    partial = files.report.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8", errors="replace")  # half a surrogate pair, as an answer that was cut has
    partial.replace(files.report)
    return files.report


def score_table(steps: list[dict[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    """Accuracy before (step 0) and after (the last trained step) by data source, with the standard error of a share of n rows;
    nan where that was not validated."""
    seen = dict(validation(steps, "acc"))
    first, last = seen.get(0, {}), seen.get(max((row["step"] for row in steps), default=0), {})
    rows = []
    for source in first | last:
        before, after = first.get(source, math.nan), last.get(source, math.nan)
        n = plan.validation_by_source.get(source) or plan.validation_rows / len(first | last)
        errors = [math.sqrt(max(p * (1 - p), 0.0) / max(n, 1)) for p in (before, after)]
        rows.append({"source": source, "before": before, "after": after, "before_se": errors[0], "after_se": errors[1]})
    return rows


def charts(steps: list[dict[str, Any]], experts: list[str]) -> list[tuple[str, str]]:
    """(title, SVG) of each figure."""
    return [(title, draw(curves, label)) for title, curves, label in chart_curves(steps, experts)]


def chart_curves(steps: list[dict[str, Any]], experts: list[str]) -> list[tuple[str, list[Curve], str]]:
    """(title, curves, label of the y axis) of each figure that has something to show."""
    trained = [row for row in steps if "ekipl/groups/count" in row]
    x = [row["step"] for row in trained]
    counts_money = any(row.get("ekipl/budget/spent") for row in trained)
    wanted = [("Held-out accuracy", held_out(steps), "accuracy")]
    for title, keys, label in training_figures(experts, counts_money):
        wanted.append(
            (title, [Curve(name, x, [row.get(key, math.nan) for row in trained]) for name, key in keys], label)
        )
    return [figure for figure in wanted if any(len(curve.x) for curve in figure[1])]


def held_out(steps: list[dict[str, Any]]) -> list[Curve]:
    """Accuracy of each data source, at the steps that were validated."""
    seen = validation(steps, "acc")
    x = [step for step, _ in seen]
    sources = seen[0][1] if seen else {}
    return [Curve(source, x, [values.get(source, float("nan")) for _, values in seen]) for source in sources]


def training_figures(experts: list[str], counts_money: bool) -> list[tuple[str, list[tuple[str, str]], str]]:
    """(title, (name, metric) of each curve, label of the y axis); the metrics are those of ekipl_rollout/group_report.py."""
    numbered = [(f"expert{number}", name) for number, name in enumerate(experts, start=1)]
    sources = [("policy", "policy"), *numbered]
    teach = [
        ("all kept rewards equal (the paper's advantages are 0)", "ekipl/groups/zero_variance"),
        ("no gradient with the baseline in use", "ekipl/groups/silent"),
        ("policy never right", "ekipl/groups/solve_none"),
        ("policy always right", "ekipl/groups/solve_all"),
        ("fewer than G", "ekipl/groups/short"),
    ]
    asked = [("asked", "ekipl/asked_share"), ("asked ahead", "ekipl/asked_ahead_share")]
    asked += [(f"{name}: rests", f"ekipl/{key}/resting") for key, name in numbered]
    seconds = [
        ("whole step", "timing_s/step"),
        ("rollout", "timing_s/gen"),
        ("waiting for experts beyond the policy", "ekipl/wait/exposed_longest_s"),
    ]

    def by_source(metric: str) -> list[tuple[str, str]]:
        return [(name, f"ekipl/{key}/{metric}") for key, name in sources]

    return [
        ("Accuracy of each source in training", by_source("accuracy"), "accuracy"),
        ("Who is in the kept group (the paper's Figure 4)", by_source("share"), "share of kept answers"),
        ("Groups that teach nothing, and why", teach, "share of groups"),
        ("Format", by_source("format"), "share in format"),
        ("Rows whose experts were asked", asked, "share of rows"),
        *([("Money", [("spent so far", "ekipl/budget/spent")], "dollars")] if counts_money else []),
        ("Seconds of a step", seconds, "seconds"),
    ]


def some_groups(files: RunFiles, config: dict[str, Any]) -> list[dict[str, Any]]:
    """A few groups from the first, the middle and the last steps, with their pictures."""
    paths = group_paths(files.root)
    if not paths:
        return []
    positions = sorted({round(i * (len(paths) - 1) / (SHOWN_GROUPS - 1)) for i in range(SHOWN_GROUPS)})
    chosen = []
    for position in positions:
        groups = list(read_groups(paths[position][1]))
        if groups:
            # the group with the widest spread of rewards says most
            best = max(groups, key=lambda g: len({a["score"] for a in g["answers"]}))
            best["answers"].sort(key=lambda a: (not a["kept"], -a["score"], a["source"]))
            chosen.append(best)
    add_rows(chosen, config["data"])
    return chosen


def add_rows(groups: list[dict[str, Any]], data: dict[str, Any]) -> None:
    """Question and pictures of each group, found again in the training files by the row's id. `data`: the run's block."""
    import pyarrow.parquet as pq

    wanted: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for group in groups:
        wanted[group["row"]].append(group)
    for name in data["train_files"]:
        with pq.ParquetFile(name) as file:
            keys = [data.get("prompt_key", "prompt"), data.get("image_key", "images"), "extra_info"]
            kept = [key for key in keys if key in file.schema_arrow.names]
            for batch in file.iter_batches(ROWS_READ_AT_ONCE, columns=kept):
                for prompt, pictures, extra in ([row.get(key) for key in keys] for row in batch.to_pylist()):
                    for group in wanted.get((extra or {}).get("id", (extra or {}).get("index")), ()):
                        _add_row(group, prompt, pictures or [], Path(name).parent)


def _add_row(group: dict[str, Any], prompt: list[dict[str, str]], pictures: list[Any], folder: Path) -> None:
    group["question"] = prompt[-1]["content"].replace("<image>", "") if prompt else ""
    try:
        group["pictures"] = [picture_url(picture_bytes(entry, folder)) for entry in pictures]
    except (OSError, ValueError) as error:  # moved, or no picture: the answers are shown all the same
        group["missing"] = str(error)


def picture_url(content: bytes) -> str:
    """PNG data URL, decoded and encoded anew: nothing but a picture can come out. Raises what Pillow raises, and ValueError
    for a picture that would take gigabytes."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"a picture of {image.width} x {image.height} pixels is not shown")
        image.thumbnail((320, 320))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
