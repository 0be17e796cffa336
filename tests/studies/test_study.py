import json
import math
from dataclasses import dataclass

import pytest

from featbench.errors import FeatbenchError, UnknownNameError, UsageError
from featbench.studies import STUDIES
from featbench.studies.page import describe, format_command, format_json, make_document, render, render_page
from featbench.studies.study import Findings, StudySettings, Table, find_study, option


@dataclass(frozen=True)
class Some(StudySettings):
    count: int = option(3, "a count", least=1)
    rate: float = option(0.5, "a rate", above=0)
    sizes: tuple[int, ...] = option((1, 2), "sizes", least=1)
    found: float | None = option(None, "found by itself", above=0)
    name: str = option("a", "a name")


ROWS = [
    {"way": "one", "n": 2, "cost": 1 / 3, "published": None},
    {"way": "two", "n": 30, "cost": 2e3, "published": 5.0},
]


@pytest.fixture
def findings():
    return Findings(
        title="A title",
        source="Someone 2001",
        tables=[Table("First", ROWS, {"published": ".1f"}), Table("Second", [{"x": "a|b"}])],
        notes=["One note.", "Another."],
        draw=lambda figure: figure.subplots().plot([1, 2]),
        data={"set": "f" * 64},
    )


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_there_with_settings_of_its_own(name):
    study = find_study(name)
    assert study.name == name
    assert study.settings().list_changes() == {}
    assert study.settings.__module__ == f"featbench.studies.{name}"


def test_a_name_that_is_nearly_right_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="unknown study 'energie': did you mean 'energy'"):
        find_study("energie")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"count": 0}, "--count is 0: it must be at least 1"),
        ({"rate": 0.0}, "--rate is 0: it must be above 0"),
        ({"rate": -1.0}, "--rate is -1: it must be above 0"),
        ({"rate": math.nan}, "--rate is nan: a number is needed"),
        ({"rate": math.inf}, "--rate is inf: a number is needed"),
        ({"sizes": (4, 0)}, "--sizes is 0: it must be at least 1"),
        ({"sizes": ()}, "--sizes is empty: give at least one value"),
        ({"found": 0.0}, "--found is 0: it must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Some(**wrong)


def test_the_command_holds_what_differs_from_the_defaults():
    assert format_command("some", Some()) == "featbench study some"
    given = Some(seed=4, rate=0.25, sizes=(3, 5), name="x y")
    assert format_command("some", given, ["a.py"]) == (
        "featbench study some --seed 4 --rate 0.25 --sizes 3,5 --name 'x y' --plugin a.py"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_never_reaches_a_table(bad):
    with pytest.raises(FeatbenchError, match=r"Costs: cost came out as (nan|inf) \(slow way\)"):
        Table("Costs", [{"way": "slow way", "cost": bad}])


def test_rows_of_a_table_have_the_same_columns():
    with pytest.raises(ValueError, match="columns"):
        Table("", [{"a": 1}, {"b": 1}])


def test_text_shows_rounded_numbers_and_leaves_empty_places(findings):
    lines = render(findings, "table").splitlines()
    assert lines[0] == "A title"
    assert [line.split() for line in lines if line.startswith(("one", "two"))] == [
        ["one", "2", "0.333"],
        ["two", "30", "2e+03", "5.0"],
    ]
    assert lines[-2:] == ["One note.", "Another."]


def test_markdown_has_a_table_for_each(findings):
    text = render(findings, "markdown")
    assert text.count("|---") + text.count("|:--") >= 2 or text.count("\n|") >= 5


def test_csv_holds_all_tables_at_full_precision(findings):
    lines = render(findings, "csv").splitlines()
    assert lines == [
        "table,way,n,cost,published,x",
        f"First,one,2,{1 / 3!r},,",
        "First,two,30,2000.0,5.0,",
        "Second,,,,,a|b",
    ]


def test_json_holds_all_tables_at_full_precision(findings):
    read = json.loads(render(findings, "json"))
    assert read["tables"] == [{"title": "First", "rows": ROWS}, {"title": "Second", "rows": [{"x": "a|b"}]}]
    assert (read["title"], read["source"], read["notes"]) == ("A title", "Someone 2001", ["One note.", "Another."])


def test_what_is_written_says_how_it_was_got(findings):
    about = describe("some", Some(count=7), findings.data)
    read = json.loads(format_json(make_document(findings, about)))
    assert read["command"] == "featbench study some --count 7"
    assert read["settings"] == {"seed": 0, "count": 7, "rate": 0.5, "sizes": [1, 2], "found": None, "name": "a"}
    assert read["data"] == {"set": "f" * 64}
    assert {"commit", "dirty", "cpu", "threads", "versions"} <= set(read["provenance"])
    assert {"torch", "numpy", "scipy", "matplotlib"} <= set(read["provenance"]["versions"])
    page = render_page(findings, about, "some.png")
    assert page.startswith("# A title\n\nSomeone 2001\n\n![A title](some.png)\n")
    for part in ("```sh\nfeatbench study some --count 7\n```", "- One note.", "- set: " + "f" * 16, "count 7"):
        assert part in page
