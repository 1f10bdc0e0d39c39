"""The viewer in one HTML file: the same page, with the answers to its questions in it instead of a server.

Scripts and styles are inline and named by their digest in the content security policy, so that nothing else can run and
nothing can be loaded. The data are JSON in a block that browsers do not execute; `<` is escaped in it, so that no text can
end the block.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tqdm import tqdm

from recipe.ekipl.view.answers import Answers
from recipe.ekipl.view.server import PAGE, as_json

LINK = re.compile(r'<link rel="stylesheet" href="page/([\w./-]+)">')
SCRIPT = re.compile(r'<script src="page/([\w./-]+)"></script>')


def write_export(answers: Answers, path: Path, groups: int, rows: int) -> str:
    """Writes `path`; returns a line that says what is in it. `groups`, `rows`: at most, of each run and each pair."""
    held = {"start": answers.get("start")}
    for place, run in enumerate(held["start"]["runs"]):
        held.update(_of_run(answers, place, run, groups))
    for first, second, split in _pairs(held["start"]["evaluations"]):
        held.update(_of_pair(answers, f"diff/{first}/{second}/{_word(split)}", f"diff/{first}/{second}/{split}", rows))
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(page(held), encoding="utf-8")
    partial.replace(path)
    shown = sum(1 for key in held if key.count("/") == 4 and key.startswith("runs/"))
    return f"  export      {path} ({path.stat().st_size / 1e6:.1f} MB, {shown} groups)"


def page(held: dict[str, Any]) -> str:
    """The whole page; `held`: path -> answer."""
    scripts: list[str] = []
    styles: list[str] = []
    text = LINK.sub(_inline("style", styles), (PAGE / "index.html").read_text(encoding="utf-8"))
    text = SCRIPT.sub(_inline("script", scripts), text)
    data = as_json(held).replace("<", "\\u003c")
    block = f'<script type="application/json" id="exported">{data}</script>\n'
    rules = (
        f"default-src 'none'; script-src {' '.join(map(_digest, scripts))}; style-src {' '.join(map(_digest, styles))}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{rules}">'
    licences = (PAGE / "vendor" / "README.md").read_text(encoding="utf-8")  # theirs ask to go with every copy
    text = text.replace('<meta charset="utf-8">', head, 1)
    first = text.index("<script>")
    return f"{text[:first]}<!--\n{licences}-->\n{block}{text[first:]}"


def _inline(tag: str, taken: list[str]) -> Callable[[re.Match], str]:
    def replace(match: re.Match) -> str:
        content = (PAGE / match[1]).read_text(encoding="utf-8")
        if f"</{tag}" in content.lower() or "<!--" in content or "\r" in content:
            raise AssertionError(f"{match[1]} cannot stand inside <{tag}>")
        taken.append(content)
        return f"<{tag}>{content}</{tag}>"

    return replace


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _word(word: Any) -> str:
    """As the page's encodeURIComponent."""
    return quote(str(word), safe="!*'()")


def _of_run(answers: Answers, place: int, run: dict[str, Any], groups: int) -> dict[str, Any]:
    """Curves, and whole steps of groups, evenly spread up to the newest. `run` is the overview; it is told of them."""
    at, steps = f"runs/{place}", run["groups"]
    held = {f"{at}/curves": answers.get(f"{at}/curves")}
    in_a_step = len(answers.get(f"{at}/groups/{steps[-1]}")) if steps else 1
    number = min(len(steps), max(1, groups // max(in_a_step, 1)))
    chosen = sorted({steps[-1 - i * len(steps) // number] for i in range(number)})
    for step in tqdm(chosen, desc=run["name"], unit="step", disable=None, leave=False):
        listed = held[f"{at}/groups/{step}"] = answers.get(f"{at}/groups/{step}")
        for group in listed:
            found = answers.get(f"{at}/groups/{step}/{group['uid']}")
            held[f"{at}/groups/{step}/{_word(group['uid'])}"] = found
    run.update(groups=chosen, running=False, export=f"This file holds {len(chosen)} of {len(steps)} steps of groups.")
    return held


def _pairs(evaluations: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    return [
        (i, j, split)
        for i, one in enumerate(evaluations)
        for j, other in enumerate(evaluations[i + 1 :], start=i + 1)
        if one["rules"] == other["rules"]
        for split in one["splits"]
        if split in other["splits"]
    ]


def _of_pair(answers: Answers, key: str, path: str, rows: int) -> dict[str, Any]:
    found = answers.get(path)
    differing_first = sorted(found["rows"], key=lambda row: -abs(row[3] - row[2]))[:rows]
    note = f"This file holds {len(differing_first)} of {len(found['rows'])} rows." if len(found["rows"]) > rows else ""
    held = {key: {**found, "rows": differing_first, "export": note}}
    for row in differing_first:
        held[f"{key}/{_word(row[0])}"] = answers.get(f"{path}/{row[0]}")
    return held
