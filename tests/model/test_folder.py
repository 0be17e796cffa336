"""Folders of models: damaged, edited, incomplete and hostile ones are refused with their reason."""

import json

import numpy as np
import pytest
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from featbench import load
from featbench.comparison import Workbench
from featbench.errors import DataError, ModelError
from featbench.execution.stored_comparison import StoredComparison
from featbench.experiment.request import Request
from featbench.model.exporting import fit_model
from featbench.model.folder import read_model, require_place, write_model
from featbench.system.hashing import content_hash, file_hash


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The document and the arrays of a model of digits."""
    workbench = Workbench(home=tmp_path_factory.mktemp("store"))
    names = {"features": ["random"], "regimes": ["R"], "classifiers": ["linear-svm"]}
    workbench.compare(Request(protocol="digits", draws=1, device="cpu", stages="4F3-Rabs-PA2/2", **names), track=False)
    comparison = StoredComparison.read(workbench.store, workbench.registry)
    return fit_model(workbench, comparison, comparison.find_row("1"), 0)


@pytest.fixture
def model(fitted, tmp_path):
    write_model(tmp_path / "model", *fitted)
    return tmp_path / "model"


def sign(folder, **changes):
    """Change fields of the document, and make its hashes right again, as somebody hostile would."""
    document = {**json.loads((folder / "model.json").read_text()), **changes}
    document["files"] = changes.get("files") or {name: file_hash(folder / name) for name in document["files"]}
    body = {name: value for name, value in document.items() if name != "hash"}
    (folder / "model.json").write_text(json.dumps({**body, "hash": content_hash(body)}))


def edit(folder, part, change):
    """Change arrays of a part, with the right hashes."""
    path = folder / f"{part}.safetensors"
    arrays = {name: array.copy() for name, array in load_arrays(path.read_bytes()).items()}
    change(arrays)
    path.write_bytes(save(arrays))
    sign(folder)


def cell_with(folder, **changes):
    return {**json.loads((folder / "model.json").read_text())["cell"], **changes}


def test_a_model_that_was_signed_again_unchanged_is_read(model):
    sign(model)
    assert load(model).classes == tuple("0123456789")


def cut(path, end):
    path.write_bytes(path.read_bytes()[:end])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "no folder": (lambda m: m.rename(m.with_name("away")), "there is no folder"),
    "no document": (lambda m: (m / "model.json").unlink(), "holds no model"),
    "an empty document": (lambda m: (m / "model.json").write_text(""), "is no JSON"),
    "a document cut short": (lambda m: cut(m / "model.json", 200), "is no JSON"),
    "a document of bytes": (lambda m: (m / "model.json").write_bytes(b"\xff\xfe\x00"), "is no JSON"),
    "a deep document": (lambda m: (m / "model.json").write_text("[" * 200_000), "is no JSON"),
    "a list": (lambda m: (m / "model.json").write_text("[1]"), "is no object"),
    "something else": (lambda m: (m / "model.json").write_text('{"a": 1}'), "holds no model of featbench"),
    "a byte flipped in the document": (lambda m: flip(m / "model.json"), "changed after|no JSON|no model"),
    "a byte flipped in the filters": (lambda m: flip(m / "filters.safetensors"), "changed after it was exported"),
    "filters cut short": (lambda m: cut(m / "filters.safetensors", 50), "changed after it was exported"),
    "no classifier": (lambda m: (m / "classifier.safetensors").unlink(), "is missing"),
    "a newer format": (lambda m: sign(m, version=2), "has version 2 .* update featbench"),
    "version 0": (lambda m: sign(m, version=0), "its format has the version 0"),
    "a version of text": (lambda m: sign(m, version="1"), "its format has the version '1'"),
    "a class more": (lambda m: sign(m, classes=[*"0123456789", "x"]), "damaged"),
    "a class less": (lambda m: sign(m, classes=[*"012345678"]), "damaged"),
    "no classes": (lambda m: sign(m, classes=[]), "its classes are no list of names"),
    "classes of numbers": (lambda m: sign(m, classes=[1, 2]), "its classes are no list of names"),
    "a file outside": (lambda m: sign(m, files={"../secret.safetensors": "0"}), "names files that no model has"),
    "an absolute file": (lambda m: sign(m, files={"/etc/passwd": "0"}), "names files that no model has"),
    "no files": (lambda m: sign(m, files={"filters.safetensors": "0"}), "changed after it was exported"),
    "an unknown learner": (lambda m: sign(m, cell=cell_with(m, learner="nothing")), "damaged"),
    "an unknown regime": (lambda m: sign(m, cell=cell_with(m, regime="X")), "damaged"),
    "another architecture": (lambda m: sign(m, cell=cell_with(m, architecture="9F3-PA2/2")), "damaged"),
    "an absurd architecture": (lambda m: sign(m, cell=cell_with(m, architecture="999999999F3")), "damaged"),
    "no cell": (lambda m: sign(m, cell={}), "damaged"),
    "a cell of text": (lambda m: sign(m, cell="random"), "damaged"),
    "an absurd shape": (lambda m: sign(m, shape=[1, -1, 8]), "damaged"),
    "a shape of text": (lambda m: sign(m, shape="8×8"), "damaged"),
    "channels of colour": (lambda m: sign(m, shape=[3, 8, 8]), "damaged"),
    "weights that are NaN": (
        lambda m: edit(m, "filters", lambda a: a["filters/1/weight"].fill(np.nan)),
        "not finite",
    ),
    "infinite weights": (lambda m: edit(m, "classifier", lambda a: a["weight"].fill(np.inf)), "not finite"),
    "weights of another shape": (
        lambda m: edit(m, "classifier", lambda a: a.update(weight=a["weight"][1:])),
        "damaged",
    ),
    "weights of none": (lambda m: edit(m, "classifier", lambda a: a.pop("bias")), "damaged"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_no_sound_model_is_refused_with_its_reason(model, kind):
    damage, message = DAMAGE[kind]
    damage(model)
    with pytest.raises(ModelError, match=message):
        load(model)


def test_a_model_that_needs_code_never_runs_that_of_its_folder(model, tmp_path):
    evil = model / "net.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    needs = [{"parameter": "file", "path": str(evil), "sha256": file_hash(evil)}]
    cell = cell_with(model, learner="module", parameters={"file": str(evil), "net": "Net"}, architecture="")
    for listed in (needs, []):
        sign(model, cell=cell, needs=listed)
        with pytest.raises(ModelError, match="runs"):
            load(model)
    assert not (tmp_path / "ran").exists()


def test_a_plugin_that_is_missing_is_named(model):
    listed = json.loads((model / "model.json").read_text())["plugins"]
    other = {**listed[0], "name": "mine", "plugin": "mine", "origin": "mine.py"}
    sign(model, plugins=[other, listed[1]])
    with pytest.raises(ModelError, match=r"needs the learner mine of the plugin mine \(mine.py\), which is not loaded"):
        load(model)


def test_other_versions_are_warned_of(model, caplog):
    versions = json.loads((model / "model.json").read_text())["versions"]
    sign(model, versions={**versions, "torch": "1.0"})
    load(model)
    assert "torch 1.0 (here" in caplog.text


def test_the_same_arrays_come_back(fitted, model):
    document, parts = read_model(model)
    assert document["row"] == fitted[0]["row"]
    for part, arrays in fitted[1].items():
        assert {name: array.tobytes() for name, array in arrays.items()} == {
            name: array.tobytes() for name, array in parts[part].items()
        }


def test_a_place_is_free_or_a_model_to_replace(model, tmp_path):
    (tmp_path / "empty").mkdir()
    for free in (tmp_path / "new", tmp_path / "empty"):
        require_place(free, force=False)
    require_place(model, force=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(model)
    for taken, force in (("model", False), ("full", True), ("file", True), ("link", True), ("no/folder", False)):
        with pytest.raises(ModelError):
            require_place(tmp_path / taken, force=force)


def test_a_model_is_replaced_whole_and_nothing_is_left_beside_it(fitted, model, tmp_path):
    (model / "old").touch()
    write_model(model, *fitted)
    assert sorted(path.name for path in tmp_path.iterdir() if "model" in path.name) == ["model"]
    assert not (model / "old").exists()


@pytest.mark.parametrize(
    "given, message",
    [
        (np.zeros((9, 9)), "comes to 9×9 pixels, and the model takes 8×8 alone"),
        ([np.zeros((8, 8)), np.zeros((8, 7))], "image 1 comes to 8×7"),
        (np.zeros((0, 8, 8)), "."),
        ([], "."),
        ("nowhere.png", "nowhere.png"),
        (np.full((8, 8), np.nan), "finite|NaN|nan"),
        (np.zeros((2, 2, 8, 8)), "."),
        (["a.png", np.zeros((8, 8))], "paths and arrays together"),
        (None, "."),
        (np.zeros((8, 8), dtype=complex), "."),
    ],
    ids=str,
)
def test_what_is_no_image_for_the_model_is_refused(model, given, message):
    with pytest.raises(DataError, match=message):
        load(model).predict(given)
