"""Runs the code blocks of README.md and docs/: Python blocks, and the `featbench` lines of shell blocks."""

import re
import shlex
from pathlib import Path

import pytest

from featbench.cli.main import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATBENCH_HOME", str(tmp_path / "store"))
    for language, code in BLOCK.findall(page.read_text("utf-8")):
        name = re.match(r"# (\w+\.py)\n", code)
        if language == "sh":
            run_shell(code)
        elif name:
            Path(name.group(1)).write_text(code, "utf-8")
        else:
            exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


def run_shell(code):
    commands = [line.partition("#")[0].strip() for line in code.splitlines()]
    for command in filter(None, commands):
        words = shlex.split(command)
        if words[0] in ("make", "pip"):
            continue
        assert words[0] == "featbench", command
        # A comparison on MNIST takes minutes: that it can be planned is what is tested here.
        long = "mnist" in words or "bsds500" in command
        if long and not data_is_there():
            continue
        assert main([*words[1:], *(["--plan"] if long else [])]) == 0, command


def data_is_there():
    import os

    return bool(os.environ.get("FEATBENCH_DATA"))


def test_every_page_is_linked_from_the_readme():
    readme = PAGES[0].read_text("utf-8")
    for page in PAGES[1:]:
        assert f"docs/{page.name}" in readme


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
