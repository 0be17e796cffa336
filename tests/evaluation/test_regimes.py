import pytest

from featbench.errors import UnknownNameError
from featbench.evaluation.regimes import REGIMES, Regime, parse_regimes


@pytest.mark.parametrize(
    ("regime", "name"),
    [
        (Regime(), "R"),
        (Regime(learned=True), "U"),
        (Regime(refined=True), "R+"),
        (Regime(learned=True, refined=True), "U+"),
        (Regime(designed=True), "fixed"),
        (Regime(designed=True, refined=True), "fixed+"),
    ],
)
def test_two_booleans_name_the_regime_and_its_name_gives_it_back(regime, name):
    assert regime.name == name
    assert parse_regimes([name]) == (regime,)
    assert REGIMES[name] == regime


@pytest.mark.parametrize(
    ("name", "stages", "initial", "label"),
    [
        ("R", 1, "", "R"),
        ("R", 2, "", "RR"),
        ("U", 2, "", "UU"),
        ("R+", 2, "", "R+R+"),
        ("U+", 2, "", "U+U+"),
        ("U+", 3, "", "U+U+U+"),
        ("R+", 0, "", "R+"),
        ("fixed", 1, "G", "G"),
        ("fixed", 2, "G", "G"),
        ("fixed+", 2, "G", "G+"),
    ],
)
def test_tables_print_a_letter_for_each_stage(name, stages, initial, label):
    assert REGIMES[name].label(stages, initial) == label


@pytest.mark.parametrize(("text", "name"), [("RR", "R"), ("UU", "U"), ("R+R+", "R+"), ("U+U+", "U+")])
def test_names_of_two_stages_are_read_as_of_one(text, name):
    assert parse_regimes([text]) == (REGIMES[name],)


def test_several_names_are_read_in_order():
    assert [regime.name for regime in parse_regimes(["U+", "R", "fixed"])] == ["U+", "R", "fixed"]


@pytest.mark.parametrize("text", ["r", "RU", "R++", "fixedfixed", "", "RRR"])
def test_unknown_name_is_refused_with_the_known_ones(text):
    with pytest.raises(UnknownNameError) as caught:
        parse_regimes(["R", text])
    assert f"unknown regime {text!r}" in str(caught.value)
    assert "known: R, R+, U, U+, fixed, fixed+" in str(caught.value)


def test_name_that_is_nearly_right_is_suggested():
    with pytest.raises(UnknownNameError, match="did you mean 'fixed'"):
        parse_regimes(["fixd"])


@pytest.mark.parametrize(
    ("family", "sensible"),
    [
        ("random", {"R", "R+"}),
        ("unsupervised", {"U", "U+"}),
        ("fixed", {"fixed", "fixed+"}),
        ("supervised", {"R+"}),
    ],
)
def test_each_family_has_its_regimes_and_a_reason_against_the_others(family, sensible):
    refused = {name: regime.refusal("mine", family) for name, regime in REGIMES.items()}
    assert {name for name, reason in refused.items() if reason is None} == sensible
    for reason in refused.values():
        assert reason is None or reason.startswith("mine ")


@pytest.mark.parametrize(
    ("name", "family", "part"),
    [
        ("R", "unsupervised", "the learner 'random' is what R stands for"),
        ("R+", "fixed", "the learner 'random' is what R+ stands for"),
        ("U", "random", "nothing to learn without labels: R is its regime"),
        ("U+", "fixed", "nothing to learn without labels: fixed is its regime"),
        ("fixed", "unsupervised", "not designed by hand: U is its regime"),
        ("R", "supervised", "learns from labels alone: ask for R+"),
        ("U", "supervised", "learns from labels alone: ask for R+"),
    ],
)
def test_reason_says_where_the_learner_belongs(name, family, part):
    assert part in REGIMES[name].refusal("mine", family)


@pytest.mark.parametrize("name", [name for name in REGIMES if name != "R+"])
def test_supervised_learner_is_sent_to_no_regime_but_its_own(name):
    reason = REGIMES[name].refusal("mine", "supervised")
    assert "R+" in reason
