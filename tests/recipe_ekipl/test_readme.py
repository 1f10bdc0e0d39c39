"""The floor plan, the links of all pages and the scripts that they name lead to what is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("recipe/ekipl", "ekipl_rollout", "ekipl_reward", "scripts", "docs", "tests")
README = re.sub(  # a_{b,c}.sh -> a_b.sh, a_c.sh
    r"(\w*)\{([\w,]+)\}(\.\w+)",
    lambda m: ", ".join(f"{m[1]}{part}{m[3]}" for part in m[2].split(",")),
    (ROOT / "README.md").read_text(encoding="utf-8"),
)
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
RECIPE = ROOT / "recipe/ekipl/README.md"
PAGES = [*READMES, RECIPE, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_file_that_the_readme_names_is_there():
    there = {path.name for room in ROOMS for path in (ROOT / room).rglob("*")}
    named = set(re.findall(r"\b[\w-]+(?:\.[\w-]+)*\.(?:py|sh|md)\b", README))
    assert named - there - {path.name for path in ROOT.iterdir()} == set()


def test_every_page_and_every_script_stands_in_the_readme():
    files = [*(ROOT / "docs").glob("*.md"), *(ROOT / "scripts").glob("*.sh")]
    assert [path.name for path in files if path.name not in README] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_that_is_named_exists(page):
    scripts = re.findall(r"bash (scripts/[\w/.]+\.sh)", page.read_text(encoding="utf-8"))
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_the_recipes_page_leads_to_nothing_outside_of_its_folder_which_may_lie_elsewhere():
    assert "](../" not in RECIPE.read_text(encoding="utf-8")


def test_each_readme_leads_to_the_other():
    for page, other in zip(READMES, reversed(READMES), strict=True):
        assert f"]({other.name})" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "room",
    sorted({path.parent for top in ROOMS[:3] for path in (ROOT / top).rglob("__init__.py")}),
    ids=lambda room: room.name,
)
def test_every_room_names_only_files_that_are_there_and_every_file_says_what_it_is_for(room):
    there = {path.name for path in room.parent.rglob("*")}
    plan = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    assert set(re.findall(r"(?<![\w/.])\w+\.py\b", plan)) - there == set()
    silent = [path.name for path in room.glob("*.py") if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []
