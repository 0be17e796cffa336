"""Refinement in cells: interrupted and resumed, kept in the store, used by any classifier."""

import numpy as np
import pytest

from featbench.comparison import Workbench
from featbench.errors import UsageError
from featbench.evaluation.protocol import Protocol
from featbench.execution.listeners import Listener
from featbench.experiment.request import Request
from featbench.refinement import progress, trainer

TINY = "6F3-Rabs-N3-PA2/2"


def request(**changes):
    asked = {
        "protocol": "digits",
        "features": ["random"],
        "regimes": ["R+"],
        "stages": TINY,
        "draws": 1,
        "train_per_class": 30,
    }
    return Request(**{**asked, "refine": "epochs=4", **changes})


class Interrupting(Listener):
    """Interrupts in mid-training, after so many reports of it."""

    def __init__(self, reports):
        self.left = reports

    def step(self, what, done, total):
        if what.startswith("refining: loss"):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def refined(comparison):
    (run,) = [run for run in comparison.runs if run.cell.regime.refined]
    return run.result


def predictions(bench, comparison):
    result = refined(comparison)
    assert result.status == "ok", result.message
    return np.asarray(bench.store.read_array("predictions", result.key)[0])


@pytest.mark.parametrize("refine", ["epochs=4,rate=0.01", "epochs=3,refit=true,hidden=9,optimizer=adamw,rate=0.002"])
def test_an_interrupted_refinement_goes_on_where_it_was(tmp_path, monkeypatch, refine):
    monkeypatch.setattr(trainer, "CHECKPOINT_INTERVAL", 0.0)
    monkeypatch.setattr(progress, "REPORT_INTERVAL", 0.0)
    whole = Workbench(home=tmp_path / "whole")
    expected = predictions(whole, whole.compare(request(refine=refine), track=False))
    home = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        Workbench(home=home, listener=Interrupting(25)).compare(request(refine=refine), track=False)
    assert list((home / "artifacts/checkpoints").glob("*.safetensors"))
    reports = []
    monkeypatch.setattr(progress, "REPORT_INTERVAL", 0.0)

    class Telling(Listener):
        def step(self, what, done, total):
            if what.startswith("refining: loss"):
                reports.append((done, total))

    again = Workbench(home=home, listener=Telling())
    comparison = again.compare(request(refine=refine), track=False)
    assert np.array_equal(predictions(again, comparison), expected)
    assert reports[0][0] > 1  # not the first epoch
    assert not list((home / "artifacts/checkpoints").iterdir())
    assert refined(comparison).report["refinement"]["best_epoch"] > 0


def test_a_damaged_checkpoint_is_set_aside_and_training_starts_again(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_INTERVAL", 0.0)
    monkeypatch.setattr(progress, "REPORT_INTERVAL", 0.0)
    whole = Workbench(home=tmp_path / "whole")
    expected = predictions(whole, whole.compare(request(), track=False))
    home = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        Workbench(home=home, listener=Interrupting(25)).compare(request(), track=False)
    (kept,) = (home / "artifacts/checkpoints").glob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-7] + b"damaged")
    again = Workbench(home=home)
    assert np.array_equal(predictions(again, again.compare(request(), track=False)), expected)
    assert list((home / "damaged").rglob("*.safetensors"))


@pytest.mark.parametrize("refine", ["epochs=3", "epochs=3,hidden=9"])
def test_one_refinement_feeds_any_classifier(tmp_path, refine):
    bench = Workbench(home=tmp_path)
    classifiers = ["logistic", "linear-svm", "knn"]
    together = bench.compare(request(classifiers=classifiers, refine=refine), track=False)
    results = {run.cell.classifier: run.result for run in together.runs if run.cell.regime.refined}
    assert {result.status for result in results.values()} == {"ok"}
    assert len(list((tmp_path / "artifacts/networks").glob("*.safetensors"))) == 1
    # A later classifier reads the refined network back, features and all, in a fresh process.
    (tmp_path / "fresh").mkdir()
    alone = Workbench(home=tmp_path / "fresh").compare(request(classifiers=["knn"], refine=refine), track=False)
    assert refined(alone).score.value == results["knn"].score.value
    for kept in (tmp_path / "artifacts/features").glob("*.npy"):
        kept.unlink()
    for kept in (tmp_path / "results").glob("*.json"):
        kept.unlink()
    again = Workbench(home=tmp_path).compare(request(classifiers=classifiers, refine=refine), track=False)
    scores = {run.cell.classifier: run.result.score.value for run in again.runs if run.cell.regime.refined}
    assert scores == {name: result.score.value for name, result in results.items()}


def test_settings_go_on_top_of_those_of_the_protocol(tmp_path):
    class Plugin:
        @staticmethod
        def featbench_protocols():
            return [own]

    from featbench.hookspecs import hookimpl

    Plugin.featbench_protocols = staticmethod(hookimpl(Plugin.featbench_protocols))
    bench = Workbench(home=tmp_path)
    digits = bench.registry.protocol("digits")
    fields = {name: getattr(digits, name) for name in digits.__dataclass_fields__}
    own = Protocol(**{**fields, "name": "own", "refinement": "epochs=7,batch=8", "refinements": {"quick": "epochs=2"}})
    bench = Workbench(home=tmp_path, plugins=[Plugin])

    def settings(refine):
        cells = bench.plan(request(protocol="own", refine=refine))
        return next(cell.refinement for cell in cells if cell.regime.refined)

    assert (settings(None).epochs, settings(None).batch) == (7, 8)
    assert (settings("quick").epochs, settings("quick").batch) == (2, 8)
    assert (settings("batch=3").epochs, settings("batch=3").batch) == (7, 3)
    assert (settings("quick,batch=3").epochs, settings("quick,batch=3").batch) == (2, 3)
    with pytest.raises(UsageError, match=r"--refine quik.*own also knows by name: quick"):
        settings("quik")


def test_frozen_cells_have_no_settings_of_refinement(tmp_path):
    cells = Workbench(home=tmp_path).plan(request(regimes=["R", "R+"]))
    assert {cell.regime.name: cell.refinement is None for cell in cells} == {"fixed": True, "R": True, "R+": False}


def test_what_diverges_fails_with_advice_and_leaves_the_rest(tmp_path):
    asked = request(regimes=["R", "R+"], stages="6C3-PM2", refine="epochs=9,rate=1e9,head_rate=1e9,optimizer=sgd")
    results = {run.cell.regime.name: run.result for run in Workbench(home=tmp_path).compare(asked, track=False).runs}
    assert results["R"].status == "ok"
    assert results["R+"].status == "failed"
    assert "diverged" in results["R+"].message
    assert "--refine rate=" in results["R+"].message
