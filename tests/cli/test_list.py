import pytest

from featbench.registry import Registry

KINDS = ("learners", "datasets", "metrics", "protocols", "classifiers")


def listed(ran):
    """Return the first word and the rest of each line."""
    return {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in ran.out.splitlines()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_listed_with_a_sentence(run, kind):
    ran = run("list", kind)
    assert (ran.code, ran.err) == (0, "")
    found = listed(ran)
    assert sorted(found) == Registry().names(kind)
    assert all(len(text) > 5 for text in found.values())


def test_learners_are_listed_with_their_family(run):
    found = listed(run("list", "learners"))
    assert found["random"].startswith("random ")
    assert found["psd"].startswith("unsupervised ")
    assert found["gabor"].startswith("fixed ")


def test_protocols_are_listed_with_their_summary(run):
    found = listed(run("list", "protocols"))
    assert found["digits"] == Registry().protocol("digits").summary


def test_metrics_are_listed_with_their_direction_and_unit(run, write_plugin):
    plugin = write_plugin(
        "metric",
        """
        import featbench

        @featbench.hookimpl
        def featbench_metrics():
            return [featbench.Metric("half", lambda *_: 0.5, summary="a half of it all")]
        """,
    )
    found = listed(run("list", "metrics", "--plugin", plugin))
    assert found["accuracy"] == "larger is better, in %: right predictions among all test images"
    assert found["error"].startswith("smaller is better, in %: ")
    assert found["half"] == "larger is better: a half of it all"


@pytest.mark.parametrize("kind, name", [("datasets", "tiny"), ("protocols", "tiny"), ("classifiers", "nearest")])
def test_what_a_plugin_gives_is_listed(run, tiny, kind, name):
    assert name in listed(run("list", kind, "--plugin", tiny))


def test_plugins_are_listed_with_what_they_give(run, tiny):
    found = listed(run("list", "plugins", "--plugin", tiny))
    assert found["featbench.plugins.random"] == "learners: random (built in)"
    assert found["tiny"] == f"classifiers: nearest; datasets: tiny; protocols: tiny ({tiny})"


def test_a_broken_plugin_is_listed_with_its_error(run, write_plugin, tiny):
    broken = write_plugin("broken", "import featbench\nraise RuntimeError('first line\\nsecond line')")
    ran = run("list", "plugins", "--plugin", broken, "--plugin", tiny)
    found = listed(ran)
    assert found["broken"] == f"BROKEN ({broken}): RuntimeError: first line second line (broken.py, line 2)"
    assert "datasets: tiny" in found["tiny"]
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_plugin_is_reported_where_its_names_are_missing(run, write_plugin, kind):
    broken = write_plugin("broken", "def f(:")
    ran = run("list", kind, "--plugin", broken)
    assert ran.code == 0
    assert ran.err.startswith(f"featbench: plugin broken ({broken}) could not be loaded: SyntaxError")
    assert sorted(listed(ran)) == Registry().names(kind)


def test_strict_makes_a_broken_plugin_fatal(run, write_plugin):
    broken = write_plugin("broken", "def f(:")
    ran = run("list", "plugins", "--plugin", broken, "--strict")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"featbench: error: plugin broken ({broken}) cannot be loaded: SyntaxError")
    assert ran.err.count("\n") == 1


def test_a_plugin_file_that_is_missing_is_an_error(run, tmp_path):
    ran = run("list", "plugins", "--plugin", tmp_path / "nowhere.py")
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err == f"featbench: error: there is no plugin file {tmp_path / 'nowhere.py'}, and no module of this name\n"
    )


@pytest.mark.parametrize("kind", ["learner", "things", ""])
def test_an_unknown_kind_is_refused(run, kind):
    ran = run("list", kind)
    assert ran.code == 2
    assert "choose from" in ran.err


def test_listing_makes_no_store(run, home):
    run("list", "learners")
    assert not home.exists()


def test_a_thing_without_a_docstring_is_listed_all_the_same(run, write_plugin):
    plugin = write_plugin(
        "silent",
        """
        import featbench

        class Silent(featbench.Classifier):
            name = "silent"
            fit = None

        @featbench.hookimpl
        def featbench_classifiers():
            return [Silent()]
        """,
    )
    assert listed(run("list", "classifiers", "--plugin", plugin))["silent"] not in ("", "None")
