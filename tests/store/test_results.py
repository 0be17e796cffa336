"""A result is read with its predictions: what is missing, damaged or another's is noticed, set aside and made anew."""

import json
import logging

import numpy as np
import pytest

from featbench.errors import StoreError
from featbench.store.store import Store
from featbench.system.hashing import content_hash
from featbench.types import Result, Score, Seconds

RESULT = Result(
    "key",
    "ok",
    score=Score("accuracy", 50.0, "%"),
    predictions=np.array([2, 0, 1, 1], dtype=np.int32),
    seconds=Seconds(0.1, 0.2, 0.3, 0.4),
    report={"strength": 0.1},
    provenance="abc",
)


@pytest.fixture
def kept(store):
    store.write_result(RESULT, {"draw": 0})
    return store


def predictions_of(store):
    return store.home / "artifacts/predictions/key.npy"


def save(path, array):
    with path.open("wb") as file:
        np.save(file, array)


def rewrite(array):
    """Write other predictions as the store would: their record and its checksums are right."""
    return lambda store: Store(store.home).write_array("predictions", "key", array, {})


PREDICTIONS = {
    "missing": lambda store: predictions_of(store).unlink(),
    "record missing": lambda store: predictions_of(store).with_suffix(".json").unlink(),
    "both missing": lambda store: [path.unlink() for path in predictions_of(store).parent.iterdir()],
    "empty": lambda store: predictions_of(store).write_bytes(b""),
    "truncated": lambda store: predictions_of(store).write_bytes(predictions_of(store).read_bytes()[:-3]),
    "one byte": lambda store: predictions_of(store).write_bytes(predictions_of(store).read_bytes()[:-1] + b"\x07"),
    "shorter": lambda store: save(predictions_of(store), np.array([2, 0, 1], dtype=np.int32)),
    "longer": lambda store: save(predictions_of(store), np.arange(5, dtype=np.int32)),
    "outside the classes": lambda store: save(predictions_of(store), np.array([99, 0, 1, 1], dtype=np.int32)),
    "negative": lambda store: save(predictions_of(store), np.array([-1, 0, 1, 1], dtype=np.int32)),
    "no integers": lambda store: save(predictions_of(store), np.array([0.5, 0, 1, 1])),
    "another's, with its record": rewrite(np.array([0, 0, 0, 0], dtype=np.int32)),
    "shorter, with its record": rewrite(np.array([2, 0, 1], dtype=np.int32)),
    "a folder": lambda store: (predictions_of(store).unlink(), predictions_of(store).mkdir()),
    "a link to nowhere": lambda store: (predictions_of(store).unlink(), predictions_of(store).symlink_to("nowhere")),
    "record empty": lambda store: predictions_of(store).with_suffix(".json").write_bytes(b""),
    "record of another version": lambda store: store.write_record("artifacts/predictions", "key", {"sha": "1"}),
}


@pytest.mark.parametrize("what", PREDICTIONS)
def test_a_result_whose_predictions_are_not_its_own_is_set_aside_and_said(kept, caplog, what):
    PREDICTIONS[what](kept)
    with caplog.at_level(logging.WARNING, logger="featbench"):
        assert Store(kept.home).read_result("key") is None
    assert "result key is without its predictions" in caplog.text
    assert not (kept.home / "results/key.json").exists()
    assert (kept.home / "damaged/results/key.json").is_file()
    kept.write_result(RESULT, {"draw": 0})
    again = Store(kept.home)
    assert again.read_result("key").score == RESULT.score
    assert again.read_array("predictions", "key")[0].tolist() == [2, 0, 1, 1]


def test_a_result_without_predictions_needs_none(store):
    store.write_result(Result("key", "failed", message="why"), {})
    assert store.read_result("key").message == "why"


def test_a_result_of_an_earlier_version_does_not_name_its_predictions(kept):
    document = kept.read_record("results", "key")
    del document["predictions"]
    kept.write_record("results", "key", document)
    assert kept.read_result("key").score == RESULT.score
    predictions_of(kept).unlink()
    assert Store(kept.home).read_result("key") is None


def change(**changes):
    return lambda document: {**document, **changes}


def drop(name):
    return lambda document: {key: value for key, value in document.items() if key != name}


OTHERS = {
    "no score": change(score=None),
    "score of another version": change(score={"metric": "accuracy", "value": 1.0}),
    "more in the score": change(score={"metric": "accuracy", "value": 1.0, "unit": "%", "low": 0.0}),
    "score is text": change(score={"metric": "accuracy", "value": "50", "unit": "%"}),
    "score is true": change(score={"metric": "accuracy", "value": True, "unit": "%"}),
    "score is a list": change(score=[1, 2]),
    "unit is a number": change(score={"metric": "accuracy", "value": 1.0, "unit": 5}),
    "seconds are a number": change(seconds=3.5),
    "seconds are text": change(seconds={"learn": "1", "refine": 0, "extract": 0, "classify": 0}),
    "unknown status": change(status="fine"),
    "status is none": change(status=None),
    "failed with a score": change(status="failed"),
    "report is text": change(report="strength"),
    "message is a number": change(message=7),
    "no provenance": drop("provenance"),
    "no seconds": drop("seconds"),
    "nothing": lambda document: {},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_record_that_is_no_result_is_set_aside_though_its_checksum_is_right(kept, caplog, what):
    kept.write_record("results", "key", OTHERS[what](kept.read_record("results", "key")))
    assert kept.read_result("key") is None
    assert "key.json is damaged" in caplog.text
    assert (kept.home / "damaged/results/key.json").is_file()


TEXTS = {
    "NaN": '{"checksum": "0", "score": NaN}',
    "infinity": '{"checksum": "0", "score": -Infinity}',
    "too large": '{"checksum": "0", "score": 1e999}',
    "deep": "[" * 100_000,
    "many digits": '{"checksum": "0", "score": ' + "9" * 5000 + "}",
    "UTF-16": '{"checksum": "0"}'.encode("utf-16"),
    "no UTF-8": b'{"checksum": "\xff"}',
    "null": "null",
    "number": "5",
    "text": '"checksum"',
    "checksum is none": '{"checksum": null}',
    "zeros": b"\0" * 100,
}


@pytest.mark.parametrize("what", TEXTS)
@pytest.mark.parametrize("kind", ["results", "surveys", "comparisons", "tracked", "provenance", "artifacts/features"])
def test_what_is_no_record_is_set_aside(store, caplog, kind, what):
    store.write_record(kind, "key", {"a": 1})
    text = TEXTS[what]
    (store.home / kind / "key.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert store.read_record(kind, "key") is None
    assert dict(store.records(kind)) == {}
    assert "key.json is damaged" in caplog.text


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(kept, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("featbench.store.store.file_hash", fail)
    with pytest.raises(StoreError, match=r"key\.npy cannot be read: Input/output error"):
        Store(kept.home).read_array("predictions", "key")


def test_a_result_is_not_there_before_both_of_its_files_are(store, monkeypatch):
    """Who reads between the two files of a writer finds nothing, and takes nothing for damaged."""
    other = Result("key", "ok", score=Score("accuracy", 75.0, "%"), predictions=np.array([3, 3], dtype=np.int32))
    write, began = Store.write_record, []

    def interrupt(self, kind, key, document):
        if kind == "artifacts/predictions" and not began:
            began.append(True)
            assert Store(store.home).read_result("key") is None
        write(self, kind, key, document)

    monkeypatch.setattr(Store, "write_record", interrupt)
    monkeypatch.setattr("featbench.store.store.PATIENCE", 0.1)
    store.write_result(other, {})
    assert store.read_result("key").score.value == 75.0
    assert not (store.home / "damaged").exists()


def test_readers_meanwhile_find_one_of_two_arrays_and_no_damage(store, caplog):
    """An array that is written again and again, by two writers, with different values, while it is read."""
    import threading

    arrays = [np.full(20_000, value, dtype=np.float32) for value in (1, 2)]
    store.write_array("kind", "key", arrays[0], {"value": 1})
    stop, seen, failed = threading.Event(), set(), []

    def write(array):
        try:
            while not stop.is_set():
                Store(store.home).write_array("kind", "key", array, {"value": int(array[0])})
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(array,)) for array in arrays]
    for writer in writers:
        writer.start()
    for _ in range(40):
        found, _ = Store(store.home).read_array("kind", "key")
        assert found.min() == found.max()
        seen.add(float(found[0]))
    stop.set()
    for writer in writers:
        writer.join()
    assert failed == []
    assert seen <= {1.0, 2.0}
    assert caplog.text == ""
    assert not (store.home / "damaged").exists()


def test_an_array_that_is_mapped_stays_as_it_was_while_another_takes_its_place(store):
    store.write_array("kind", "key", np.zeros(1000), {})
    found, _ = store.read_array("kind", "key")
    store.write_array("kind", "key", np.ones(10), {})
    assert (found.shape, found.sum()) == ((1000,), 0)


# Through comparisons.


def test_a_comparison_makes_damaged_results_anew_and_says_so(compare_tiny, home):
    first = compare_tiny("--regimes", "R", "--quiet")
    keys = sorted(path.stem for path in (home / "results").glob("*.json"))
    assert len(keys) == 6
    (home / "artifacts/predictions" / f"{keys[0]}.npy").unlink()
    (home / "artifacts/predictions" / f"{keys[1]}.npy").write_bytes(b"")
    (home / "results" / f"{keys[2]}.json").write_bytes(b"")
    record = home / "results" / f"{keys[3]}.json"
    document = json.loads(record.read_text())
    document = {**document, "score": {**document["score"], "value": 1e6}}
    record.write_text(json.dumps(document))
    body = json.loads((home / "results" / f"{keys[4]}.json").read_text())
    body = {name: value for name, value in body.items() if name not in ("checksum", "seconds")}
    (home / "results" / f"{keys[4]}.json").write_text(json.dumps({"checksum": content_hash(body), **body}))
    again = compare_tiny("--regimes", "R")
    assert again.code == 0
    assert "5 cells computed, 1 read from the store" in again.err
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in first.rows]
    assert again.err.count("is without its predictions") == 2
    assert again.err.count("is damaged: it was moved to") >= 5
    assert "nothing to compute" in compare_tiny("--regimes", "R").err


@pytest.mark.parametrize("kind", ["labels", "images", "features", "filters"])
@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_comparison_makes_damaged_artifacts_anew(compare_tiny, home, kind, damage):
    first = compare_tiny("--regimes", "R", "--draws", "1", "--quiet")
    for path in (home / "results").glob("*.json"):
        path.unlink()
    for path in (home / "artifacts" / kind).iterdir():
        if path.suffix != ".json":
            path.unlink() if damage is None else path.write_bytes(damage)
    again = compare_tiny("--regimes", "R", "--draws", "1")
    assert again.code == 0
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in first.rows]
