"""Both READMEs point at things that exist, and at each other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")


@pytest.mark.parametrize("name", READMES)
def test_every_link_into_the_repository_leads_somewhere(name):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
    assert links and [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", READMES)
def test_every_script_that_is_named_exists(name):
    scripts = set(re.findall(r"bash (scripts/[\w/.]+\.sh)", (ROOT / name).read_text()))
    assert scripts and [script for script in scripts if not (ROOT / script).is_file()] == []


def test_each_leads_to_the_other():
    assert "](README.zh-CN.md)" in (ROOT / "README.md").read_text()
    assert "](README.md)" in (ROOT / "README.zh-CN.md").read_text()
