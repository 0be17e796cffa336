import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbench.errors import UsageError
from featbench.refinement.augmentation import Augmentation
from featbench.refinement.settings import Refinement


@given(
    epochs=st.integers(1, 10_000),
    rate=st.floats(1e-9, 1e9),
    optimizer=st.sampled_from(["sgd", "adamw"]),
    refit=st.booleans(),
    shift=st.floats(0, 9),
)
def test_settings_are_read_as_they_are_printed(epochs, rate, optimizer, refit, shift):
    settings = Refinement(epochs=epochs, rate=rate, optimizer=optimizer, refit=refit, shift=shift)
    assert Refinement.read(str(settings)) == settings


def test_nothing_given_gives_the_defaults():
    assert Refinement.read("") == Refinement() == Refinement.read()
    assert str(Refinement()) == ""


def test_later_texts_go_on_top_of_earlier_ones():
    assert Refinement.read("epochs=3,batch=4", "epochs=5") == Refinement(epochs=5, batch=4)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoch=3", "epochs"),
        ("epochs=0", "epochs must be at least 1"),
        ("epochs=2.5", "epochs takes an int"),
        ("rate=0", "rate must be positive"),
        ("rate=-1", "rate must be positive"),
        ("rate=inf", "rate"),
        ("rate=1e10", "rate must be positive and at most 1e"),
        ("batch=0", "batch must be at least 1"),
        ("patience=0", "patience"),
        ("decay=-1", "decay must not be negative"),
        ("l1=-1", "l1 must not be negative"),
        ("clip=-1", "clip must not be negative"),
        ("hidden=-3", "hidden must not be negative"),
        ("momentum=1", "momentum must be at least 0 and below 1"),
        ("optimizer=lbfgs", "optimizer must be one of sgd, adamw"),
        ("schedule=linear", "schedule must be one of cosine, step, constant"),
        ("shift=-1", "shift"),
        ("smooth=0", "smooth"),
        ("refit=3", "refit takes a bool"),
        ("epochs", "write parameter=value"),
        ("epochs=3,epochs=4", "twice"),
    ],
)
def test_what_cannot_be_is_refused_by_name(text, named):
    with pytest.raises(UsageError, match=named):
        Refinement.read(text)


def test_distortions_are_those_of_the_settings():
    settings = Refinement(shift=2.0, elastic=5.0, smooth=3.0, flip=True)
    assert settings.augmentation == Augmentation(shift=2.0, elastic=5.0, smooth=3.0, flip=True)
    assert not Refinement().augmentation.active


def test_cosine_falls_from_one_towards_zero():
    factors = [Refinement(epochs=10).compute_rate_factor(epoch) for epoch in range(1, 11)]
    assert factors[0] == 1
    assert factors[5] == pytest.approx(0.5)
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx((1 + math.cos(0.9 * math.pi)) / 2)


def test_step_drops_by_ten_at_half_and_at_three_quarters():
    settings = Refinement(epochs=8, schedule="step")
    assert [settings.compute_rate_factor(epoch) for epoch in range(1, 9)] == pytest.approx(
        [1] * 4 + [0.1] * 2 + [0.01] * 2
    )


def test_constant_stays():
    assert {Refinement(epochs=8, schedule="constant").compute_rate_factor(epoch) for epoch in range(1, 9)} == {1.0}
