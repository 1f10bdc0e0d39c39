"""Table 1 as text: Markdown for reading, CSV for machines, LaTeX (booktabs, multirow-free) for papers."""

import csv
import html
import io
from collections.abc import Callable, Sequence

from ekipl_rollout.inert import printable
from recipe.ekipl.measure.table_rows import COLUMNS, TASKS, Line, Part

HEADINGS = {
    "clevr_math": ("Clevr-Math", "ID"),
    "super_clevr": ("Super-Clevr", "OOD"),
    "geomath": ("GeoMath", "ID"),
    "geometry3k": ("Geometry3k", "OOD"),
    "trance": ("TRANCE", "ID"),
    "trance_left": ("TRANCE-L", "OOD"),
    "trance_right": ("TRANCE-R", "OOD"),
}
NOTHING = "–"
AVERAGES = (
    "AVG is the plain mean of a task's columns. So is the paper's, except on spatial transformation: + Reason-RFT-Zero leaves ID "
    "out, and proprietary and open-source models count ID as much as both OOD columns together."
)
PROMPTS = (
    "Every method is asked with the prompt of the training, Zero-Shot too. Reason-RFT, whose settings the paper follows, asks "
    "models that were not trained with prompts of their own, most of them without tags."
)


def _note(parts: Sequence[Part]) -> str:
    if not any(part.beside for part in parts):
        return f"Per cent, as the paper printed it. {AVERAGES}"
    runs = {line.ours.runs for part in parts for line in part.lines if line.ours}
    seeds = f" Means of {', '.join(map(str, sorted(runs)))} training seeds." if max(runs) > 1 else ""
    numbers = f"Per cent; ± the longer half of the 95 % interval; in brackets the paper's number.{seeds}"
    return f"{numbers} {AVERAGES} {PROMPTS}"


def _heading(column: str) -> tuple[str, str]:
    return HEADINGS.get(column, ("AVG", ""))


def _cell(part: Part, line: Line, column: str, ours: str, beside: str, ranked: dict[int, str]) -> str:
    """One cell. `ours`, `beside` and `ranked` are patterns: {mean} and {half}, {paper}, {}."""
    paper = f"{line.papers.cells[column]:.2f}" if line.papers else ""
    emphasis = ranked.get(part.ranked(column).get(line.label, 0), "{}")
    if not part.beside:
        return emphasis.format(paper)
    found = line.ours.cells.get(column) if line.ours else None
    text = NOTHING
    if found is not None:
        half = max(found.mean - found.low, found.high - found.mean)
        text = ours.format(mean=emphasis.format(f"{found.mean:.2f}"), half=f"{half:.1f}")
    return text + beside.format(paper=paper) if paper else text


def markdown(parts: Sequence[Part]) -> str:
    tasks = [f"{' '.join(_heading(column)).strip()}" for column in COLUMNS]
    tops = [f"{title}<br>" if i == 0 else "" for title, splits in TASKS.values() for i in range(len(splits) + 1)]
    rows = [
        "| Method | " + " | ".join(top + task for top, task in zip(tops, tasks, strict=True)) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for part in parts:
        rows.append(f"| *{part.heading}* |" + " |" * len(COLUMNS))
        for line in part.lines:
            cells = [
                _cell(part, line, c, "{mean} ±{half}", " ({paper})", {1: "**{}**", 2: "<u>{}</u>"}) for c in COLUMNS
            ]
            rows.append(f"| {_in_markdown(line.label)} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + f"\n\n{_note(parts)}\n"


def comma_separated(parts: Sequence[Part]) -> str:
    """Each column four times: ours, the ends of its interval, and the paper's."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ends = ("", "_low", "_high", "_paper")
    writer.writerow(["group", "method", "label", "runs", *(c + end for c in COLUMNS for end in ends)])
    for part in parts:
        for line in part.lines:
            cells = []
            for column in COLUMNS:
                ours = line.ours.cells.get(column) if line.ours else None
                cells += [f"{v:.4f}" for v in (ours.mean, ours.low, ours.high)] if ours else ["", "", ""]
                cells.append(f"{line.papers.cells[column]:.2f}" if line.papers else "")
            names = map(no_formula, (part.heading, line.method, line.label.removeprefix("+ ")))
            writer.writerow([*names, line.ours.runs if line.ours else "", *cells])
    return buffer.getvalue()


def latex(parts: Sequence[Part]) -> str:
    r"""A table* for \usepackage{booktabs,graphicx,xcolor}."""
    spans, rules, at = [], [], 2
    for title, splits in TASKS.values():
        width = len(splits) + 1
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{title}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    lines = [
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{Results on three visual reasoning tasks. {_escape(_note(parts))}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{l{'c' * len(COLUMNS)}}}",
        r"\toprule",
        rf"Method & {' & '.join(spans)} \\",
        "".join(rules),
        " & ".join(["", *(_heading(column)[0] for column in COLUMNS)]) + r" \\",
        " & ".join(["", *(_heading(column)[1] for column in COLUMNS)]) + r" \\",
    ]
    gray = r" {{\color{{gray}}({paper})}}"
    for part in parts:
        lines += [r"\midrule", rf"\multicolumn{{{len(COLUMNS) + 1}}}{{l}}{{\textit{{{_escape(part.heading)}}}}} \\"]
        for line in part.lines:
            patterns = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
            cells = [_cell(part, line, c, r"{mean}{{\scriptsize$\pm${half}}}", gray, patterns) for c in COLUMNS]
            lines.append(" & ".join([_escape(line.label), *cells]).replace(NOTHING, "--") + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}", ""])


LATEX = {
    **{character: "\\" + character for character in "%_&#${}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    NOTHING: "--",
}


def _escape(text: str) -> str:
    """A label as LaTeX shows it: it is a name that somebody gave, and no command."""
    return printable(text, keep="").translate({ord(character): shown for character, shown in LATEX.items()})


def _in_markdown(text: str) -> str:
    """A label that is no HTML and ends no cell."""
    return html.escape(printable(text, keep=""), quote=False).replace("|", r"\|")


def no_formula(text: str) -> str:
    """A label that no spreadsheet takes for a formula (OWASP, "CSV injection")."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


WRITERS: dict[str, Callable[[Sequence[Part]], str]] = {"md": markdown, "csv": comma_separated, "tex": latex}
"""File ending -> the table as text."""
