"""CONTRIBUTING.md and the pre-commit hook: they name commands, files and rooms that exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from featbench.built_in import BUILT_IN_COMMANDS

ROOT = Path(__file__).parent.parent

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.fixture
def hooks():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    # Anything but "local" is an address that pre-commit would fetch.
    assert [repository["repo"] for repository in repositories] == ["local"]
    return repositories[0]["hooks"]


def test_the_hook_runs_the_lint_command_of_the_makefile(hooks):
    (hook,) = hooks
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == ("make lint", "system", False)
    program, target = shlex.split(hook["entry"])
    assert (program, target in TARGETS) == ("make", True)
    assert {"id", "name"} <= set(hook)


def test_the_page_is_one_page():
    assert len(PAGE.splitlines()) <= 80


def test_the_commands_of_the_page_exist():
    assert {"test", "lint"} <= set(re.findall(r"\bmake (\w+)", PAGE)) <= TARGETS
    assert set(re.findall(r"\bfeatbench ([a-z]\w*)", PAGE)) <= set(BUILT_IN_COMMANDS)
    for path, name in re.findall(r"pytest (tests/\S+) -k (\w+)", PAGE):
        assert name in (ROOT / path).read_text("utf-8")


def test_the_files_and_folders_that_the_page_names_exist():
    named = {name for name in re.findall(r"`([\w./]+)`", PAGE) if "/" in name}
    assert {"featbench/", "tests/", "plugins/", "learning/", "featbench/store/keys.py"} <= named
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "featbench" / name).is_dir(), name


def test_links_of_the_page_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert "docs/design.md" in links
    for target in links:
        assert (ROOT / target).exists(), target


def test_the_readme_links_the_page():
    assert "(CONTRIBUTING.md)" in (ROOT / "README.md").read_text("utf-8")
