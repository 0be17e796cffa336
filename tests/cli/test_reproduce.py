import csv
import io
import json
import math
import re
import sys

import numpy as np
import pytest
from scipy import stats

SMALL = """
    import featbench
    from featbench import Claim, Contrast, PublishedRow, PublishedTable

    R = {"Rabs": 30.5, "PM": 85.0, "PA": 10.0}
    B = {"Rabs": 33.5, "PA": 99.0}

    @featbench.hookimpl
    def featbench_protocols():
        names = {"one:Rabs": "4F3-Rabs-PA2/2", "one:PM": "4F3-PM2", "one:PA": "4F3-PA2/2"}
        return [featbench.Protocol(
            name="small", summary="6x6 images", dataset="tiny", architecture="4F3-PM2", architectures=names,
            preprocessing=featbench.Preprocessing(), train_per_class=4, test="rest", features=("random",),
            regimes=("R",), classifiers=("nearest",), draws=3,
        )]

    @featbench.hookimpl
    def featbench_tables():
        seeing = Contrast("R less blind", ((1, "R", "PA"), (-1, "blind", "PA")))
        return [PublishedTable(
            name="small", summary="a small table", protocol="PROTOCOL", columns=("Rabs", "PM", "PA"),
            rows=(
                PublishedRow("R", "random", "R", "one", R, {"PM": 1.7}, "nearest"),
                PublishedRow("blind", "blind", "U", "one", B, classifier="nearest"),
            ),
            tolerance={"Rabs": 50.0, "PM": 0.5, "PA": 0.25},
            claims=(
                Claim("Seeing helps.", (seeing, Contrast("twice", ((2, "R", "PA"), (-2, "blind", "PA")), above=10.0))),
                Claim("Not seeing helps.", (
                    Contrast("blind less R", ((1, "blind", "PA"), (-1, "R", "PA"))),
                    Contrast("R: gain of PA", ((1, "R", "PA"), (-1, "R", "PM"))),
                )),
            ),
            notes=("Nothing was left open.",), source="Nobody 2001, table 7",
        )]
"""

PUBLISHED = {
    **{("R", "Rabs"): 30.5, ("R", "PM"): 85.0, ("R", "PA"): 10.0},
    **{("blind", "Rabs"): 33.5, ("blind", "PA"): 99.0},
}

TOLERANCE = {"Rabs": 50.0, "PM": 0.5, "PA": 0.25}

CELLS = (len(PUBLISHED) + 2) * 3

TERMS = {
    "R less blind": (0, {"R PA": 1, "blind PA": -1}),
    "twice": (10, {"R PA": 2, "blind PA": -2}),
    "blind less R": (0, {"blind PA": 1, "R PA": -1}),
    "R: gain of PA": (0, {"R PA": 1, "R PM": -1}),
}


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    """Leave out what only a power cut would show."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture
def small(write_plugin):
    """The plugin with the table and the protocol `small`."""
    return write_plugin("small", SMALL.replace("PROTOCOL", "small"))


@pytest.fixture
def blind(write_learner):
    """Write the plugin with the learner `blind`, whose filters are all zero; `before` is run when it is asked."""
    return lambda before="pass": write_learner("blind", f"{before}\nreturn 0 * weight")


@pytest.fixture
def reproduce(run, tiny, small, blind):
    """Call `featbench reproduce small` with these options; rows come as JSON."""
    default = blind()

    def reproduce(*options, table="small", plugins=(), track=False):
        named = [text for plugin in (tiny, small, default, *plugins) for text in ("--plugin", plugin)]
        tracking = [] if track else ["--no-track"]
        return run("reproduce", table, "--format", "json", "--device", "cpu", *named, *tracking, *options)

    return reproduce


def at(ran, row, column):
    """Return one cell of the table."""
    (found,) = [r for r in ran.rows if (r["row"], r["column"]) == (row, column)]
    return found


def shown_claims(text):
    """Return the lines on claims: what was measured, n, p and the verdict, by the contrast."""
    lines = {}
    for contrast in TERMS:
        (line,) = [line for line in text.splitlines() if re.match(rf"(\| )?{contrast} +[-\d|]", line)]
        lines[contrast] = [part for part in re.split(r"\s{2,}|\s*\|\s*", line.strip("| ")) if part][1:]
    return lines


# The table and its formats.


def test_json_rows_hold_what_was_published_and_measured(reproduce):
    ran = reproduce()
    assert ran.code == 0
    assert [(row["row"], row["column"]) for row in ran.rows] == [("chance", ""), ("raw-pixels", ""), *PUBLISHED]
    for (row, column), value in PUBLISHED.items():
        line = at(ran, row, column)
        assert (line["published"], line["tolerance"], line["n"], line["status"]) == (value, TOLERANCE[column], 3, "ok")
        assert line["mean"] == pytest.approx(np.mean(line["scores"]), rel=1e-12)
        assert line["std"] == pytest.approx(np.std(line["scores"], ddof=1), rel=1e-9, abs=1e-12)
        assert line["difference"] == pytest.approx(np.mean(line["scores"]) - value, rel=1e-12)
        side = "above" if line["difference"] > 0 else "below"
        assert line["verdict"] == ("within" if abs(line["difference"]) <= TOLERANCE[column] else side)
        assert line["published_std"] == (1.7 if (row, column) == ("R", "PM") else None)
    # These three are known beforehand: who is blind guesses one of three classes.
    assert at(ran, "blind", "PA")["scores"] == pytest.approx([100 / 3] * 3)
    assert [at(ran, *cell)["verdict"] for cell in (("blind", "Rabs"), ("blind", "PA"), ("R", "PA"))] == [
        *("within", "below", "above")
    ]
    for baseline in ("chance", "raw-pixels"):
        line = at(ran, baseline, "")
        assert [line[name] for name in ("published", "published_std", "difference", "tolerance", "verdict")] == [
            *(None, None, None, None, "")
        ]


def test_csv_and_markdown_and_table_say_what_json_says(reproduce):
    ran = reproduce()
    comma = reproduce("--format", "csv")
    found = list(csv.DictReader(io.StringIO(comma.out)))
    for name in ("row", "column", "verdict", "status", "learner", "classifier", "label"):
        assert [row[name] for row in found] == [row[name] for row in ran.rows]
    for name in ("published", "published_std", "mean", "std", "difference", "tolerance", "n", "fit_seconds"):
        assert [float(row[name]) if row[name] else None for row in found] == [row[name] for row in ran.rows]
    # Where rows are for programs, claims are said beside them.
    assert "\nSeeing helps. Confirmed.\n" in ran.err
    assert "\nNot seeing helps. Not confirmed.\n" in ran.err
    assert shown_claims(comma.err) == shown_claims(ran.err)
    for form in ("table", "markdown"):
        shown = reproduce("--format", form)
        text = shown.out
        assert "Seeing helps." not in shown.err
        assert shown_claims(text) == shown_claims(ran.err)
        for row in ran.rows:
            published = "" if row["published"] is None else f"{row['published']:.1f}"
            name = {"raw-pixels": "raw pixels"}.get(row["row"], row["row"])
            parts = [name, row["column"], published, f"{row['mean']:.1f} ± {row['std']:.1f}"]
            parts += ["" if row["difference"] is None else f"{row['difference']:+.1f}", row["verdict"]]
            start = rf"^\|? *{re.escape(name)} +\|? *{row['column']} "
            (line,) = [line for line in text.splitlines() if re.search(start, line)]
            for part in parts:
                assert part in line
        assert text.startswith("small: a small table\nNobody 2001, table 7\n")
        assert "85.0 ± 1.7" in text
        assert "Nothing was left open." in text
        assert not re.search(r"\b(nan|none|inf)\b", text, re.IGNORECASE)


def test_the_table_is_what_is_shown_by_default(run, reproduce, tiny, small, blind):
    options = ("--columns", "PM", "--draws", "1")
    shown = reproduce("--format", "table", *options).out
    ran = run("reproduce", "small", "--plugin", tiny, "--plugin", small, "--plugin", blind(), "--no-track", *options)
    assert ran.out == shown


def test_a_table_is_written_to_a_file(reproduce, tmp_path):
    path = tmp_path / "rows"
    options = ("--columns", "PM", "--draws", "1", "--format", "markdown")
    ran = reproduce("--output", path, *options)
    assert (ran.code, ran.out) == (0, "")
    assert f"wrote {path}" in ran.err
    assert path.read_text() == reproduce(*options).out


def test_progress_names_cells_by_row_and_column(reproduce):
    ran = reproduce("--rows", "blind", "--draws", "1")
    # A blind learner's features are warned of, which lines that begin with the program's name do.
    lines = [line for line in ran.err.splitlines() if not line.startswith("featbench: ")]
    assert lines[0] == "device: cpu"
    assert [line.partition(":")[0] for line in lines[1:5]] == [
        "[1/4] chance guess draw 0",
        "[2/4] raw-pixels nearest draw 0",
        "[3/4] blind Rabs draw 0",
        "[4/4] blind PA draw 0",
    ]
    assert lines[5].startswith("4 cells computed, 0 read from the store; ")
    assert ": 33.33 % (" in lines[4]


def test_quiet_says_nothing_but_the_table(reproduce):
    assert reproduce("--quiet", "--format", "table", "--columns", "PM", "--draws", "1").err == ""


# Claims.


@pytest.mark.parametrize(("options", "ratio"), [((), 24 / 12), (("--test-per-class", "2", "--seed", "1"), 6 / 12)])
def test_the_p_values_of_claims_follow_from_the_scores(reproduce, options, ratio):
    ran = reproduce(*options)
    shown = shown_claims(ran.err)
    for pair in (["R less blind", "twice"], ["blind less R", "R: gain of PA"]):
        raw = {}
        for contrast in pair:
            above, terms = TERMS[contrast]
            draws = sum(w * np.array(at(ran, *place.split())["scores"]) for place, w in terms.items()) - above
            raw[contrast] = stats.t.sf(draws.mean() / math.sqrt((1 / 3 + ratio) * draws.var(ddof=1)), 2)
            assert shown[contrast][1] == f"{draws.mean() + above:.1f} ± {draws.std(ddof=1):.1f}"
        # Of two, Holm doubles the smaller, and the larger is no less than that.
        first, second = sorted(raw, key=raw.get)
        adjusted = {first: min(1, 2 * raw[first])}
        adjusted[second] = max(raw[second], adjusted[first])
        for contrast in pair:
            said = "confirmed" if adjusted[contrast] < 0.05 else "not confirmed"
            assert shown[contrast][2:] == ["3", f"{adjusted[contrast]:.2g}", said]


def test_one_draw_has_no_deviation_and_tests_nothing(reproduce):
    ran = reproduce("--draws", "1")
    for row in ran.rows:
        assert (row["n"], row["std"], row["mean"]) == (1, None, row["scores"][0])
    assert "Seeing helps. Not tested.\n" in ran.err
    for line in shown_claims(ran.err).values():
        assert line[2:] == ["1", "not tested: needs at least 2 draws"]
    assert "nan" not in reproduce("--draws", "1", "--format", "table").out


def test_a_claim_on_cells_that_are_not_measured_is_not_tested(reproduce):
    shown = shown_claims(reproduce("--rows", "R").err)
    assert shown["R less blind"] == ["-89.0", "0", "not tested: blind PA not measured"]
    assert shown["R: gain of PA"][0] == "-75.0"
    assert shown["R: gain of PA"][2] == "3"
    text = reproduce("--columns", "PA", "--format", "table").out
    assert "not tested: R PM not measured" in text
    assert "Seeing helps. Confirmed.\n" in text
    text = reproduce("--columns", "Rabs", "--format", "table").out
    assert "Seeing helps. Not tested.\n" in text
    assert "not tested: R PA, blind PA not measured" in text


# What is measured.


def test_rows_and_columns_choose_among_the_cells(reproduce):
    def places(*options):
        return [line.split()[:2] for line in reproduce("--draws", "1", "--plan", *options).out.splitlines()[3:]]

    assert places("--rows", "blind") == [["blind", "Rabs"], ["blind", "PA"]]
    assert places("--columns", "PA,PM") == [["R", "PA"], ["R", "PM"], ["blind", "PA"]]
    assert places("--rows", "R, blind", "--columns", "PM") == [["R", "PM"]]
    assert [row["column"] for row in reproduce("--draws", "1", "--columns", "PM").rows] == ["", "", "PM"]


def test_a_plan_computes_nothing(reproduce, home):
    ran = reproduce("--plan", "--rows", "blind", "--draws", "2")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "8 cells",
        *(f"{name} draw {draw}" for name in ("chance guess", "raw-pixels nearest") for draw in range(2)),
        *(f"{name} draw {draw}" for name in ("blind Rabs", "blind PA") for draw in range(2)),
    ]
    assert ran.err == ""
    assert not (home / "results").exists()


def test_the_numbers_are_those_of_a_comparison(reproduce, run, tiny, small, blind):
    ran = reproduce()
    options = ("--stages", "one:PM", "--features", "random", "--regimes", "R", "--format", "json", "--device", "cpu")
    plugins = [text for plugin in (tiny, small, blind()) for text in ("--plugin", plugin)]
    compared = run("compare", "--protocol", "small", "--no-track", *options, *plugins)
    assert "nothing to compute: all 9 cells were in the store" in compared.err
    for learner, place in (("random", ("R", "PM")), ("chance", ("chance", "")), ("raw-pixels", ("raw-pixels", ""))):
        expected = compared.row(learner)
        assert {name: at(ran, *place)[name] for name in expected} == expected


def test_a_table_reads_what_a_comparison_measured(reproduce, run, tiny, small):
    options = ("--stages", "one:PM", "--features", "random", "--regimes", "R", "--format", "json", "--device", "cpu")
    run("compare", "--protocol", "small", "--no-track", *options, "--plugin", tiny, "--plugin", small)
    assert "6 cells computed, 9 read from the store" in reproduce("--rows", "R").err


# The second time.


def test_a_second_run_computes_nothing_and_does_not_load_the_data(reproduce, log):
    first = reproduce()
    before = log.lines()
    assert (before.count("load"), before.count("blind")) == (1, 6)
    second = reproduce()
    assert log.lines() == before
    assert (second.code, second.out) == (0, first.out)
    assert f"nothing to compute: all {CELLS} cells were in the store" in second.err
    assert "0 read from the store" in first.err


def test_other_claims_and_numbers_change_nothing_that_was_measured(reproduce, small, log):
    first = reproduce("--draws", "1")
    before = log.lines()
    small.write_text(small.read_text().replace("33.5", "50.5").replace("above=10.0", "above=20.0"))
    second = reproduce("--draws", "1")
    assert log.lines() == before
    assert at(second, "blind", "Rabs")["published"] == 50.5
    assert [row["scores"] for row in second.rows] == [row["scores"] for row in first.rows]


INTERRUPTED = """
lines = open(os.environ["FEATBENCH_TEST_LOG"]).read().split()
if lines.count("blind") == 2:
    raise KeyboardInterrupt
"""


def test_a_run_that_is_interrupted_goes_on_where_it_was(reproduce, blind, home, log, tmp_path):
    blind(INTERRUPTED)
    ran = reproduce()
    assert (ran.code, ran.out) == (130, "")
    assert "interrupted; finished results are kept" in ran.err
    done = 2 * 3 + 3 * 3 + 1
    finished = {path: path.stat().st_mtime_ns for path in (home / "results").iterdir()}
    assert len(finished) == done

    resumed = reproduce()
    assert resumed.code == 0
    assert f"{CELLS - done} cells computed, {done} read from the store" in resumed.err
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert log.count("blind") == 2 + 5

    def scores(ran):
        return [(row["row"], row["column"], row["scores"], row["verdict"]) for row in ran.rows]

    assert scores(resumed) == scores(reproduce("--home", tmp_path / "other"))


FAILS = """
if os.path.exists(os.environ["FEATBENCH_TEST_LOG"] + ".fail"):
    lines = open(os.environ["FEATBENCH_TEST_LOG"]).read().split()
    if lines.count("blind") == 5:
        raise RuntimeError("on purpose")
"""


def test_a_cell_that_fails_has_its_row_and_no_mean_and_may_be_tried_again(reproduce, blind, log, tmp_path):
    blind(FAILS)
    (tmp_path / "log.fail").touch()
    ran = reproduce()
    assert ran.code == 1
    failed = at(ran, "blind", "PA")
    assert (failed["status"], failed["verdict"], failed["n"]) == ("failed", "failed", 2)
    assert failed["message"].startswith("RuntimeError: on purpose (blind.py, line ")
    assert failed["published"] == 99.0
    assert [failed[name] for name in ("mean", "std", "difference")] == [None, None, None]
    assert at(ran, "blind", "Rabs")["status"] == "ok"
    assert re.search(r"\[20/21\] blind PA draw 1: failed \(.* s\): RuntimeError: on purpose \(blind", ran.err)
    assert ", 1 failed; " in ran.err
    assert shown_claims(ran.err)["R less blind"][-1] == "not tested: blind PA not measured"

    (tmp_path / "log.fail").unlink()
    before = log.count("blind")
    again = reproduce("--format", "table")
    assert (again.code, log.count("blind")) == (1, before)
    (line,) = [line for line in again.out.splitlines() if re.match("blind +PA ", line)]
    assert line.split() == ["blind", "PA", "99.0", "failed", "failed", "2", *line.split()[6:]]
    assert re.search(r"^failed: blind PA: RuntimeError: on purpose \(blind", again.out, re.MULTILINE)
    assert "nan" not in again.out

    retried = reproduce("--retry")
    assert (retried.code, log.count("blind")) == (0, before + 1)
    assert f"1 cells computed, {CELLS - 1} read from the store" in retried.err
    assert (at(retried, "blind", "PA")["n"], at(retried, "blind", "PA")["verdict"]) == (3, "below")


# Requests that make no sense.

MISTAKES = {
    "row": (["--rows", "R,blnd"], "unknown row 'blnd': did you mean 'blind'?"),
    "column": (["--columns", "rabs"], "unknown column 'rabs': did you mean 'Rabs'? known: PA, PM, Rabs"),
    "no rows": (["--rows", ","], "--rows is empty: give at least one name"),
    "no columns": (["--columns", ""], "--columns is empty: give at least one name"),
    "no numbers": (["--rows", "blind", "--columns", "PM"], "small has no numbers for rows blind in columns PM"),
    "no draws": (["--draws", "0"], "--draws must be at least 1, not 0"),
    "data set": (["--dataset", "tny"], "unknown dataset 'tny': did you mean 'tiny'?"),
    "device": (["--device", "gpu"], "unknown device 'gpu': it is auto, cpu or cuda"),
    "no output folder": (["--output", "nowhere/rows.csv"], "--output nowhere/rows.csv: there is no folder nowhere"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_ends_with_one_line_before_anything_is_computed(reproduce, case, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, message = MISTAKES[case]
    ran = reproduce(*options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("featbench: error: ")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert not (home / "results").exists()


def test_a_table_that_is_unknown_is_refused(reproduce, home):
    ran = reproduce(table="smal")
    assert (ran.code, ran.out) == (2, "")
    known = "jarrett2009, lazebnik2006, small, yang2009"
    assert ran.err == f"featbench: error: unknown table 'smal': did you mean 'small'? known: {known}\n"
    assert not (home / "results").exists()


def test_a_table_must_be_named(run):
    ran = run("reproduce")
    assert (ran.code, ran.out) == (2, "")
    assert "the following arguments are required: TABLE" in ran.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('protocol="small"', 'protocol="smal"', "unknown protocol 'smal': did you mean 'small'?"),
        ('"blind", "blind", "U"', '"blind", "blnd", "U"', "unknown learner 'blnd': did you mean 'blind'?"),
        ('"blind", "blind", "U"', '"blind", "blind", "Q"', "unknown regime 'Q'"),
        ('"U", "one"', '"U", "three"', "small also knows by name: one:Rabs, one:PM, one:PA"),
        ('classifier="nearest"', 'classifier="nearst"', "unknown classifier 'nearst': did you mean 'nearest'?"),
    ],
)
def test_a_table_that_cannot_be_measured_says_why_before_anything_is_computed(
    reproduce, small, home, old, new, message
):
    source = small.read_text()
    assert old in source
    small.write_text(source.replace(old, new))
    ran = reproduce()
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert not (home / "results").exists()


def test_a_table_without_its_data_says_so(run, tmp_path, home):
    ran = run("reproduce", "jarrett2009", "--data-dir", tmp_path, "--no-track")
    assert (ran.code, ran.out) == (2, "")
    assert "data set caltech101: there is no folder" in ran.err
    assert not (home / "results").exists()


# Plugins.


def test_a_table_with_the_name_of_another_is_refused(reproduce, write_plugin, home):
    source = SMALL.replace("PROTOCOL", "small").replace('name="small"', 'name="jarrett2009"')
    thief = write_plugin("thief", source)
    ran = reproduce("--rows", "blind", "--draws", "1", plugins=[thief])
    assert ran.code == 1  # a plugin that was named is broken, but the table is measured
    assert "table 'jarrett2009' is given by thief" in ran.err
    assert "and by featbench.protocols.jarrett2009 (built in): rename one" in ran.err
    assert len(ran.rows) == 4
    strict = reproduce("--strict", "--rows", "blind", plugins=[thief])
    assert (strict.code, strict.out) == (2, "")


def test_a_hook_that_gives_no_table_is_refused(reproduce, write_plugin):
    source = "import featbench\n@featbench.hookimpl\ndef featbench_tables():\n    return ['jarrett']\n"
    ran = reproduce("--plan", "--strict", plugins=[write_plugin("odd", source)])
    assert ran.code == 2
    assert "featbench_tables must return instances of PublishedTable, got 'jarrett'" in ran.err


def test_tables_are_listed(run, small):
    ran = run("list", "tables", "--plugin", small)
    assert ran.code == 0
    names = [line.split("  ")[0] for line in ran.out.splitlines()]
    assert names == ["jarrett2009", "lazebnik2006", "small", "yang2009"]
    assert ran.out.splitlines()[2].endswith("  a small table")
    assert "tables: small" in run("list", "plugins", "--plugin", small).out


def test_what_was_asked_for_is_kept(reproduce, home):
    reproduce("--rows", "blind", "--columns", "PA", "--draws", "2", "--seed", "4")
    (path,) = (home / "comparisons").iterdir()
    asked = json.loads(path.read_text())["request"]
    assert {name: asked[name] for name in ("reproduce", "rows", "columns", "draws", "seed")} == {
        **{"reproduce": "small", "rows": ["blind"], "columns": ["PA"]},
        **{"draws": 2, "seed": 4},
    }


def test_the_terminal_shows_a_bar_with_rows_and_columns(reproduce, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)
    monkeypatch.setenv("COLUMNS", "100")
    ran = reproduce("--rows", "blind", "--columns", "PA", "--draws", "1")
    assert ran.code == 0
    assert re.search(r"blind PA draw 0: .* 2/3 ", ran.err)
    assert "[3/3]" not in ran.err
