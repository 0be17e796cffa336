"""The page on studies: its commands parse, its Python runs, and it names every study."""

import re
import shlex
from pathlib import Path

import pytest

import featbench
from featbench.cli.study import _make_parser
from featbench.studies import STUDIES, surfaces
from featbench.studies.study import find_study

PAGE = Path(featbench.__file__).parent.parent / "docs" / "studies" / "README.md"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def blocks():
    return BLOCK.findall(PAGE.read_text("utf-8"))


def test_every_study_is_named_and_its_page_can_be_written(blocks):
    commands = "\n".join(code for language, code in blocks if language == "sh")
    for name in STUDIES:
        assert f"[{name}]({name}.md)" in PAGE.read_text("utf-8")
        assert re.search(rf"^featbench study {name} (.* )?--output docs/studies$", commands, re.MULTILINE)
        assert (PAGE.parent / f"{name}.png").is_file()


def test_the_commands_are_understood(blocks):
    for language, code in blocks:
        for line in code.splitlines() if language == "sh" else ():
            program, command, name, *options = shlex.split(line)
            assert (program, command) == ("featbench", "study")
            if name != "--help":
                study = find_study(name)
                given = vars(_make_parser(study).parse_args(options))
                study.settings(**{setting: given[setting] for setting in study.settings.__dataclass_fields__})


def test_the_python_runs(blocks, monkeypatch, capsys):
    monkeypatch.setattr(surfaces, "UPDATES", 3)
    monkeypatch.setattr(surfaces, "DICTIONARY_UPDATES", 3)
    for language, code in blocks:
        if language == "python":
            exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})
    assert "K-means" in capsys.readouterr().out
