"""Comparisons read back from a store, and their rows found by what users call them."""

import json

import pandas as pd
import pytest

from featbench import compare
from featbench.errors import UnknownNameError, UsageError
from featbench.execution.stored_comparison import StoredComparison
from featbench.registry import Registry
from featbench.report.table import order_rows
from featbench.system.hashing import content_hash

LEARNERS = ["random", "psd(updates=2)", "gabor"]


@pytest.fixture
def registry(tiny):
    return Registry([tiny])


@pytest.fixture
def compare_here(tiny):
    def here(plugins=(), **asked):
        asked = {"features": LEARNERS, "regimes": ["R", "U", "fixed"], "draws": 2, "device": "cpu", **asked}
        return compare("tiny", plugins=[tiny, *plugins], track=False, **asked)

    return here


@pytest.fixture
def read(store, registry):
    return lambda key=None: StoredComparison.read(store, registry, key)


def names(comparison):
    return [row.name for row in comparison.stored_rows if row.number is not None]


def test_rows_are_those_that_the_comparison_gave(compare_here, read, registry):
    given = compare_here()
    wanted = order_rows(given, [("chance", "fixed"), ("raw-pixels", "fixed")])
    pd.testing.assert_frame_equal(read().rows, wanted, check_exact=True)


def test_numbers_are_those_of_the_printed_lines(compare_tiny, read):
    printed = compare_tiny("--regimes", "R,U,fixed", "--features", "random,gabor", "--format", "csv").out
    lines = [line for line in printed.splitlines()[1:] if ",skipped," not in line]
    assert lines
    for number, line in enumerate(lines, 1):
        columns = read().find_row(str(number)).columns
        assert f",{columns['learner']},{columns['regime']},{columns['label']},{columns['classifier']}," in line


def test_results_are_those_of_the_store(compare_here, read, store):
    compare_here()
    runs = read().runs
    assert {run.result.key for run in runs if run.result.status == "ok"} == {key for key, _ in store.records("results")}
    assert all(
        store.read_record("results", run.result.key)["cell"] == run.cell.describe() for run in runs if not run.cell.skip
    )


@pytest.mark.parametrize(
    "text, name",
    [
        ("random", "random R nearest"),
        (" random  R ", "random R nearest"),
        ("random R nearest", "random R nearest"),
        ("gabor", "gabor G nearest"),
        ("gabor fixed", "gabor G nearest"),
        ("gabor G", "gabor G nearest"),
        ("psd(updates=2)", "psd(updates=2) U nearest"),
        ("psd(updates=2) U", "psd(updates=2) U nearest"),
        ("raw pixels", "raw-pixels – nearest"),
        ("raw-pixels nearest", "raw-pixels – nearest"),
        ("chance fixed guess", "chance – guess"),
    ],
)
def test_a_row_is_found_by_its_name(compare_here, read, text, name):
    compare_here()
    assert read().find_row(text).name == name


def test_the_best_row_has_the_largest_mean(compare_here, read):
    compare_here()
    rows = read().rows
    best = rows.loc[rows["mean"].idxmax()]
    assert read().find_row("best").columns["learner"] == best["learner"]


@pytest.mark.parametrize("text", ["", " ", "0", "99", "-1", "psd", "random U+", "R", "nearest", "BEST", "²", "1 2"])
def test_a_row_that_is_not_there_is_an_error_that_lists_the_rows(compare_here, read, text):
    compare_here()
    with pytest.raises(UsageError, match="has no row") as caught:
        read().find_row(text)
    assert "1: psd(updates=2) U nearest (" in str(caught.value)


def test_an_ambiguous_row_lists_those_that_it_means(compare_here, read):
    compare_here(regimes=None, classifiers=["nearest", "knn"])
    with pytest.raises(UsageError, match="'random R' means several rows") as caught:
        read().find_row("random R")
    assert str(caught.value).count("random R") == 3
    assert read().find_row("random R knn").name == "random R knn"


def test_the_last_comparison_is_the_one_that_ran_last_even_from_the_store(compare_here, read):
    compare_here(features=["random"])
    first = read().key
    compare_here(features=["gabor"], regimes=["fixed"])
    assert read().key != first
    compare_here(features=["random"])
    assert read().key == first


def test_a_comparison_is_found_by_the_beginning_of_its_key(compare_here, read):
    compare_here(features=["random"])
    key = read().key
    compare_here(features=["gabor"])
    assert read(key[:6]).key == key
    with pytest.raises(UnknownNameError, match="unknown comparison 'xyz'"):
        read("xyz")
    with pytest.raises(UsageError, match="several comparisons begin with ''"):
        read("")


def test_a_store_without_comparisons_says_so(read):
    with pytest.raises(UsageError, match="holds no comparison: run `featbench compare` first"):
        read()


def test_skipped_rows_are_read_back_with_their_reason(compare_here, read):
    compare_here(features=["gabor"], regimes=["R"])
    row = read().find_row("gabor")
    assert (row.number, row.columns["status"]) == (None, "skipped")
    with pytest.raises(UsageError, match="it is skipped: gabor does not start"):
        row.find_run(0)


def test_a_result_that_is_missing_is_not_run(compare_here, read, home):
    compare_here(features=["random"], regimes=["R"])
    run = read().find_row("random").find_run(1)
    (home / "results" / f"{run.result.key}.json").unlink()
    row = read().find_row("random")
    assert row.columns["status"] == "not run"
    assert row.find_run(0).result.status == "ok"
    with pytest.raises(UsageError, match="draw 1 of random R nearest has no score, it is not run: run the comparison"):
        row.find_run(1)


def test_a_damaged_result_is_set_aside_and_not_run(compare_here, read, home):
    compare_here(features=["random"], regimes=["R"])
    run = read().find_row("random").find_run(0)
    (home / "results" / f"{run.result.key}.json").write_text("{")
    with pytest.raises(UsageError, match="it is not run"):
        read().find_row("random").find_run(0)


def test_a_damaged_comparison_is_not_the_last(compare_here, read, home):
    compare_here(features=["random"])
    first = read().key
    compare_here(features=["gabor"])
    (home / "comparisons" / f"{read().key}.json").write_bytes(b"\xff\x00")
    assert read().key == first


def test_a_draw_that_is_not_there_is_an_error(compare_here, read):
    compare_here()
    with pytest.raises(UsageError, match="random R nearest has no draw 2: its draws are 0, 1"):
        read().find_row("random").find_run(2)


def test_a_failed_row_says_why_and_is_never_the_best(compare_here, read, write_learner, store, tiny):
    broken = write_learner("broken", "raise RuntimeError('on purpose')")
    compare_here(plugins=[broken], features=["broken"], regimes=["U"])
    comparison = StoredComparison.read(store, Registry([tiny, broken]))
    assert comparison.find_row("best").name != "broken U nearest"
    with pytest.raises(UsageError, match="has no score, it is failed: RuntimeError: on purpose"):
        comparison.find_row("broken").find_run(0)


def test_a_plugin_that_is_not_loaded_is_named(compare_here, read, write_learner):
    compare_here(plugins=[write_learner("absent")], features=["absent"], regimes=["U"])
    with pytest.raises(UnknownNameError, match="unknown learner 'absent'"):
        read()


def test_a_record_of_another_version_says_to_run_again(compare_here, read, home, store):
    compare_here()
    key = read().key
    document = store.read_record("comparisons", key)
    del document["rows"]
    store.write_record("comparisons", key, document)
    assert json.loads((home / "comparisons" / f"{key}.json").read_text())["checksum"] == content_hash(document)
    with pytest.raises(UsageError, match=r"was kept by another version of featbench: run it again"):
        read()
