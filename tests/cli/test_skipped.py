"""A comparison in which nothing of what was asked for could run says so, in its exit code too."""

import pytest

SKIPPED = {
    "random": ("U", "random under R or R+"),
    "sift": ("R", "sift under fixed"),
    "psd": ("fixed", "psd under U or U+"),
    "kmeans": ("R,fixed", "kmeans under U or U+"),
    "gabor": ("U,R", "gabor under fixed or fixed+"),
    "convnet": ("U,R", "convnet under R+"),
    "hog": ("U+", "hog under fixed"),
    "scspm": ("fixed", "scspm under U"),
    "psd,ica": ("R", "psd under U or U+; ica under U or U+"),
    "random,random(scale=2.0)": ("U,U+", "random under R or R+"),
    "pca,sift": ("R,R+", "pca under U or U+; sift under fixed"),
    "module(file=a.py,net=A)": ("U", "module under fixed"),
}
"""Learners, regimes that none of them has, and what would run in their place."""


@pytest.fixture
def compare(compare_tiny):
    return lambda *options: compare_tiny("--draws", "1", "--quiet", *options)


@pytest.mark.parametrize("features", SKIPPED)
def test_what_would_run_is_said_where_nothing_did(compare, features):
    regimes, instead = SKIPPED[features]
    ran = compare("--features", features, "--regimes", regimes)
    assert ran.code == 1
    message = "everything that was asked for was skipped, and the table says why; what would run: "
    last = ran.err.splitlines()[-1]
    assert last.startswith(f"featbench: {message}")
    for one in instead.split("; "):
        learner, _, under = one.partition(" under ")
        assert f"{learner} under {under.split(' or ')[0]}" in last
    # The baselines ran, and the table is there.
    assert {row["learner"]: row["status"] for row in ran.rows if row["learner"] == "chance"} == {"chance": "ok"}
    assert [row["status"] for row in ran.rows].count("skipped") >= 1


def test_the_images_may_be_what_does_not_fit(compare):
    ran = compare("--features", "sift", "--regimes", "fixed")
    assert ran.code == 1
    assert ran.err == (
        "featbench: everything that was asked for was skipped, and the table says why; change what it asks for\n"
    )


PARTLY = {
    "one regime fits": ("random", "R,U"),
    "one learner fits": ("random,sift", "R"),
    "all fit": ("random", "R"),
    "a baseline was asked for": ("chance", "fixed"),
    "a baseline was asked for among others": ("chance,random", "U,fixed"),
    "a baseline alone": ("raw-pixels", "fixed"),
    "a baseline, which has but one regime": ("raw-pixels", "R"),
}


@pytest.mark.parametrize("case", PARTLY)
def test_a_comparison_with_a_row_that_ran_is_a_success(compare, case):
    features, regimes = PARTLY[case]
    ran = compare("--features", features, "--regimes", regimes)
    assert (ran.code, ran.err) == (0, "")


def test_the_protocols_own_choice_is_a_success(compare):
    assert compare().code == 0


def test_the_message_is_not_in_the_table(compare, tmp_path):
    path = tmp_path / "rows.csv"
    ran = compare("--features", "random", "--regimes", "U", "--format", "csv", "--output", path)
    assert (ran.code, ran.out) == (1, "")
    assert "everything that was asked for" in ran.err
    assert path.read_text().count("\n") == 4


def test_a_second_time_is_no_success_either(compare):
    codes = [compare("--features", "random", "--regimes", "U").code for _ in range(2)]
    assert codes == [1, 1]
