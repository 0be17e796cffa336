import csv
import io
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from helpers.mlflow_runs import client_of, runs_of
from helpers.plugin_sources import LEARNER, TINY

from featbench.cli.main import main
from featbench.execution.tracking_address import find_database, find_default_uri
from featbench.report.filters import filters_png
from featbench.store.store import Store

REFUSED = "http://127.0.0.1:9"
"""Port 9 (discard) of this machine: nobody listens there."""


def pictures(run):
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A store with a comparison that was mirrored into the store's own database, made by that very command."""
    folder = tmp_path_factory.mktemp("tracked")
    for name, source in (
        ("tiny", TINY),
        (
            "counted",
            LEARNER.replace("NAME", "counted")
            .replace("FAMILY", "unsupervised")
            .replace("BODY", "        return weight"),
        ),
        (
            "broken",
            LEARNER.replace("NAME", "broken")
            .replace("FAMILY", "random")
            .replace("BODY", "        raise RuntimeError('on purpose')"),
        ),
    ):
        (folder / f"{name}.py").write_text(source)
    arguments = [
        *("compare", "--protocol", "tiny", "--home", str(folder / "home"), "--device", "cpu", "--quiet"),
        *("--features", "counted(scale=0.1),broken", "--regimes", "R,U,U+", "--draws", "1"),
        *("--refine", "rate=0.05"),  # steps that can be seen
        *(text for name in ("tiny", "counted", "broken") for text in ("--plugin", str(folder / f"{name}.py"))),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATBENCH_TEST_LOG", str(folder / "log"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(arguments) == 1  # broken under R
    shutil.copytree(folder / "home", folder / "before")
    return folder, arguments


@pytest.fixture
def tracked_home(tracked):
    return tracked[0] / "home"


@pytest.fixture
def empty_database(tracked, tmp_path, monkeypatch):
    """An MLflow database without a run of ours; to make one from nothing takes MLflow seconds."""
    monkeypatch.chdir(tmp_path)  # MLflow puts the files of a database that is not the store's own into ./mlruns
    path = tmp_path / "empty.db"
    shutil.copy(tracked[0] / "home/mlflow.db", path)
    with sqlite3.connect(path) as connection:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs", "experiment_tags"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM experiments WHERE name LIKE 'featbench%'")
    connection.close()
    parents, children = runs_of(path)
    assert (parents, children) == ([], {})
    return path


@pytest.fixture
def own_database(empty_database, home):
    """The empty database, where the store of this test has its own."""
    home.mkdir()
    return Path(shutil.move(empty_database, find_database(Store(home))))


# What is written by default.


def test_a_comparison_is_a_parent_run_with_a_child_for_each_cell(tracked_home):
    (parent,), children = runs_of(tracked_home / "mlflow.db")
    assert set(children) == {
        "chance fixed guess draw 0",
        "raw-pixels fixed nearest draw 0",
        "counted(scale=0.1) U nearest draw 0",
        "counted(scale=0.1) U+ nearest draw 0",
        "broken R nearest draw 0",
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {run.info.experiment_id for run in children.values()} == {parent.info.experiment_id}
    assert client_of(tracked_home / "mlflow.db").get_experiment(parent.info.experiment_id).name == "featbench tiny"


def test_a_child_has_the_metrics_of_its_result(tracked_home):
    _, children = runs_of(tracked_home / "mlflow.db")
    store = Store(tracked_home)
    for run in children.values():
        result = store.read_result(run.data.tags["featbench.result"])
        expected = {"fit_seconds": result.seconds.fit, "extract_seconds": result.seconds.extract}
        if result.score is not None:
            expected["accuracy"] = result.score.value
        assert run.data.tags.get("featbench.unit") == (None if result.score is None else "%")
        assert run.data.metrics == pytest.approx(expected)
    assert {run.data.tags["featbench.result"] for run in children.values()} == {k for k, _ in store.records("results")}


def test_a_child_has_the_parameters_of_its_cell(tracked_home):
    _, children = runs_of(tracked_home / "mlflow.db")
    parameters = children["counted(scale=0.1) U+ nearest draw 0"].data.params
    expected = {
        "dataset": "tiny",
        "protocol": "tiny",
        "architecture": "4F3-Rabs-PA2/2",
        "learner": "counted",
        "parameters": "{'scale': 0.1}",
        "regime": "U+",
        "classifier": "nearest",
        "draw": "0",
        "seed": "0",
        "train_per_class": "4",
        "device": "cpu",
        "chosen.classes": "3",
    }
    assert {name: parameters[name] for name in expected} == expected
    assert "best_epoch" in parameters["chosen.refinement"]


def test_a_child_has_a_picture_of_its_filters(tracked_home):
    _, children = runs_of(tracked_home / "mlflow.db")
    store = Store(tracked_home)
    drawn = {}
    for kind, name in (("filters", "filters/1/weight"), ("networks", None)):
        for path in (tracked_home / "artifacts" / kind).glob("*.safetensors"):
            tensors, _ = store.read_tensors(kind, path.stem)
            weight = tensors[name] if name else next(array for array in tensors.values() if array.ndim == 4)
            drawn[kind] = filters_png(weight)
    assert pictures(children["counted(scale=0.1) U nearest draw 0"]) == {"filters.png": drawn["filters"]}
    assert pictures(children["counted(scale=0.1) U+ nearest draw 0"]) == {"filters.png": drawn["networks"]}
    assert drawn["filters"] != drawn["networks"]
    assert pictures(children["chance fixed guess draw 0"]) == {}


def test_pictures_lie_in_the_store(tracked_home):
    assert len(list((tracked_home / "mlartifacts").rglob("filters.png"))) == 2


def test_a_failed_cell_is_a_failed_run(tracked_home):
    (parent,), children = runs_of(tracked_home / "mlflow.db")
    failed = children.pop("broken R nearest draw 0")
    assert failed.info.status == "FAILED"
    assert failed.data.tags["featbench.message"].startswith("RuntimeError: on purpose (broken.py, line ")
    assert failed.data.tags["featbench.status"] == "failed"
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    assert parent.info.status == "FAILED"


def test_a_parent_has_the_request_the_means_and_the_table(tracked_home):
    (parent,), children = runs_of(tracked_home / "mlflow.db")
    assert parent.data.params["protocol"] == "tiny"
    assert parent.data.params["regimes"] == "['R', 'U', 'U+']"
    score = children["counted(scale=0.1) U+ nearest draw 0"].data.metrics["accuracy"]
    assert parent.data.metrics["mean.counted_scale_0.1_.Uplus.nearest"] == score
    assert not any("broken" in name for name in parent.data.metrics)
    table = pictures(parent)["rows.csv"].decode()
    assert [row["learner"] for row in csv.DictReader(io.StringIO(table))].count("broken") == 3


def test_a_second_run_writes_nothing(tracked, capsys, monkeypatch):
    folder, arguments = tracked
    before = (folder / "home/mlflow.db").read_bytes()
    monkeypatch.setattr(
        "featbench.execution.mlflow_mirror.Mirror._connect", lambda self: pytest.fail("MLflow is not needed")
    )
    assert main(arguments) == 1
    assert (folder / "home/mlflow.db").read_bytes() == before
    assert "cannot be written" not in capsys.readouterr().err


def test_results_are_not_read_from_mlflow(tracked, capsys, monkeypatch):
    # Without its database and its journal, the store is the same store.
    folder, arguments = tracked
    shutil.rmtree(folder / "home")
    shutil.copytree(folder / "before", folder / "home")
    for name in ("mlflow.db", "mlartifacts", "tracked"):
        path = folder / "home" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    arguments = [argument for argument in arguments if argument != "--quiet"]
    assert main([*arguments, "--no-track"]) == 1
    assert "nothing to compute" in capsys.readouterr().err
    shutil.rmtree(folder / "home")
    shutil.copytree(folder / "before", folder / "home")


# Where it is written.


def test_no_track_writes_nothing_to_mlflow(compare_tiny, home):
    assert compare_tiny("--draws", "1").code == 0
    assert not (home / "mlflow.db").exists()
    assert not (home / "mlartifacts").exists()
    assert not (home / "tracked").exists()


def test_the_address_is_the_stores_database_unless_the_environment_names_another(store, monkeypatch, tmp_path):
    assert find_default_uri(store) == f"sqlite:///{(store.home / 'mlflow.db').resolve()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert find_default_uri(store) == "http://elsewhere"


def test_the_environment_names_the_server(compare_tiny, home, empty_database, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{empty_database}")
    ran = compare_tiny("--regimes", "R", "--draws", "1", track=True)
    assert ran.code == 0
    (parent,), children = runs_of(empty_database)
    assert (len(children), parent.info.status) == (3, "FINISHED")
    assert not (home / "mlflow.db").exists()


def test_an_option_goes_before_the_environment(compare_tiny, empty_database, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSED)
    ran = compare_tiny("--regimes", "R", "--draws", "1", "--track", f"sqlite:///{empty_database}", track=True)
    assert (ran.code, "cannot be written" in ran.err) == (0, False)
    assert len(runs_of(empty_database)[1]) == 3


@pytest.mark.parametrize("address", [REFUSED, "nonsense://nowhere"])
def test_a_server_that_is_away_is_said_once_and_the_comparison_goes_on(compare_tiny, home, address):
    ran = compare_tiny("--regimes", "R", "--track", address, track=True)
    assert ran.code == 0
    assert [row["status"] for row in ran.rows] == ["ok"] * 3
    assert ran.err.count("cannot be written") == 1
    assert f"featbench: MLflow at {address} cannot be written: " in ran.err
    assert "The comparison goes on; its results are safe in the store" in ran.err
    assert "Traceback" not in ran.err
    assert not (home / "mlflow.db").exists()


def test_what_a_server_missed_is_caught_up(compare_tiny, write_learner, own_database, log):
    options = ("--features", "counted", "--regimes", "U")
    plugins = [write_learner("counted")]
    compare_tiny(*options, "--track", REFUSED, plugins=plugins, track=True)
    assert runs_of(own_database) == ([], {})
    ran = compare_tiny(*options, plugins=plugins, track=True)
    assert ran.code == 0
    assert "nothing to compute" in ran.err
    assert log.count("counted") == 2
    (parent,), children = runs_of(own_database)
    assert (parent.info.status, len(children)) == ("FINISHED", 6)
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    assert "filters.png" in pictures(children["counted U nearest draw 1"])


def test_a_server_that_goes_away_in_the_middle_is_caught_up_without_doubles(compare_tiny, own_database, monkeypatch):
    from mlflow.tracking import MlflowClient

    create, made = MlflowClient.create_run, []

    def create_three(self, *arguments, **options):
        if len(made) == 3:
            raise ConnectionError("gone")
        made.append(create(self, *arguments, **options))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", create_three)
        ran = compare_tiny("--regimes", "R", track=True)
    assert (ran.code, ran.err.count("cannot be written: gone")) == (0, 1)
    assert [len(runs) for runs in runs_of(own_database)] == [1, 2]
    again = compare_tiny("--regimes", "R", track=True)
    assert again.code == 0
    assert again.rows == ran.rows
    (parent,), children = runs_of(own_database)
    assert (parent.info.status, len(children)) == ("FINISHED", 6)


def test_an_interrupted_comparison_is_a_killed_run_until_it_is_finished(compare_tiny, write_learner, own_database, log):
    body = """
        if open(os.environ["FEATBENCH_TEST_LOG"]).read().count("slow") == 2:
            raise KeyboardInterrupt
        return weight
    """
    options = ("--features", "slow", "--regimes", "U")
    plugins = [write_learner("slow", body)]
    assert compare_tiny(*options, plugins=plugins, track=True).code == 130
    (parent,), children = runs_of(own_database)
    assert (parent.info.status, len(children)) == ("KILLED", 5)
    assert compare_tiny(*options, plugins=plugins, track=True).code == 0
    (parent,), children = runs_of(own_database)
    assert (parent.info.status, len(children)) == ("FINISHED", 6)


def test_another_comparison_of_the_same_cells_is_a_parent_of_its_own(compare_tiny, own_database):
    compare_tiny("--regimes", "R", "--draws", "1", track=True)
    ran = compare_tiny("--regimes", "R", "--draws", "2", track=True)
    assert "3 cells computed, 3 read from the store" in ran.err
    client = client_of(own_database)
    (experiment,) = client.search_experiments(filter_string="name LIKE 'featbench%'")
    runs = client.search_runs([experiment.experiment_id])
    children = [run.data.tags["mlflow.parentRunId"] for run in runs if "mlflow.parentRunId" in run.data.tags]
    parents = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(children.count(parent) for parent in parents) == [3, 6]


def test_the_environment_of_the_user_is_left_as_it_is(compare_tiny, own_database, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    compare_tiny("--regimes", "R", "--draws", "1", track=True)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_TRACKING_URI" not in os.environ
