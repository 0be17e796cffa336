import copy
import logging
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from featbench.errors import LearningError
from featbench.refinement import refine, trainer
from featbench.refinement.classifier_layer import ClassifierLayer, fit_classifier_layer
from featbench.refinement.gradients import DivergedError, Gradients
from featbench.refinement.refine import refine as run_refinement
from featbench.refinement.settings import Refinement

CPU = torch.device("cpu")


def images(n=60, classes=3):
    generator = np.random.default_rng(0)
    labels = np.arange(n) % classes
    maps = generator.standard_normal((n, 1, 8, 8)) + 0.4 * labels[:, None, None, None] * np.eye(8)
    held_out = np.zeros(n, dtype=bool)
    held_out[: n // 3] = True
    return torch.from_numpy(maps).float(), labels.astype(np.int64), held_out


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(3))


class Memory:
    """A checkpoint in memory that keeps everything written to it; the process dies after so many of them."""

    def __init__(self, dies_after=None):
        self.written, self.dies_after = [], dies_after

    def read(self):
        return copy.deepcopy(self.written[-1]) if self.written else None

    def write(self, arrays, document):
        if self.dies_after is not None and len(self.written) == self.dies_after:
            raise KeyboardInterrupt
        self.written.append(copy.deepcopy((arrays, dict(document))))


def train(settings, *, checkpoint=None, seed=3, net=None, data=None):
    maps, labels, held_out = data or images()
    return run_refinement(
        net or network(),
        maps,
        labels,
        held_out,
        classes=3,
        seed=seed,
        device=CPU,
        settings=settings,
        checkpoint=checkpoint,
    )


def states(refined):
    return {name: value.numpy().copy() for name, value in refined.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def each_batch(monkeypatch):
    """Let a checkpoint be written after every batch."""
    monkeypatch.setattr(trainer, "CHECKPOINT_INTERVAL", 0.0)


def sgd(**settings):
    return Refinement(**{"optimizer": "sgd", "rate": 0.02, "head_rate": 1.0, **settings})


SETTINGS = {
    "momentum": sgd(epochs=4, batch=7),
    "adamw": Refinement(epochs=4, batch=7, optimizer="adamw", rate=0.01),
    "refit": Refinement(epochs=4, batch=7, refit=True),
    "hidden": Refinement(epochs=3, batch=7, hidden=5, refit=True),
    "patience": Refinement(epochs=30, patience=2, batch=7),
    "distorted": Refinement(epochs=3, batch=7, shift=1.0, elastic=3.0),
    "penalised": sgd(epochs=3, batch=7, l1=1e-3, clip=0.1, schedule="step"),
}


@pytest.mark.parametrize("which", SETTINGS)
def test_a_killed_refinement_goes_on_and_ends_with_the_same_weights(which, each_batch):
    settings = SETTINGS[which]
    whole = Memory()
    expected, report = train(settings, checkpoint=whole)
    writes = len(whole.written)
    assert writes > 6
    for dies_after in {1, 4, writes // 2, writes - 2, writes - 1}:
        kept = Memory(dies_after)
        with pytest.raises(KeyboardInterrupt):
            train(settings, checkpoint=kept)
        kept.dies_after = None
        found, again = train(settings, checkpoint=kept)
        assert_same(states(found), states(expected))
        assert {**again, "seconds_before": 0} == {**report, "seconds_before": 0}
        assert len(kept.written) >= writes - 1


@pytest.mark.parametrize("refit", [False, True])
def test_a_refinement_killed_after_its_last_checkpoint_trains_no_more(refit, each_batch, monkeypatch):
    settings, kept = Refinement(epochs=3, batch=7, refit=refit), Memory()
    expected, report = train(settings, checkpoint=kept)
    assert report["best_epoch"] > 0
    assert kept.written[-1][1]["state"]["finished"]
    monkeypatch.setattr(trainer.Trainer, "_step", lambda *_: pytest.fail("it was trained again"))
    found, again = train(settings, checkpoint=kept)
    assert_same(states(found), states(expected))
    assert again.pop("seconds_before") > 0
    assert again == report


def test_a_checkpoint_in_another_format_is_passed_over_and_training_starts_at_the_beginning(each_batch, caplog):
    settings = Refinement(epochs=2, batch=7)
    expected, report = train(settings)
    kept = Memory(4)
    with pytest.raises(KeyboardInterrupt):
        train(settings, checkpoint=kept)
    kept.dies_after = None
    del kept.written[-1][1]["format"]
    with caplog.at_level(logging.WARNING, "featbench"):
        found, again = train(settings, checkpoint=kept)
    assert "another version of featbench" in caplog.text
    assert_same(states(found), states(expected))
    assert again == report


def test_the_time_before_it_was_killed_is_not_forgotten(each_batch):
    kept = Memory(5)
    with pytest.raises(KeyboardInterrupt):
        train(Refinement(epochs=4, batch=7), checkpoint=kept)
    kept.dies_after = None
    report = train(Refinement(epochs=4, batch=7), checkpoint=kept)[1]
    assert report["seconds_before"] == kept.written[4][1]["state"]["seconds"] > 0


def test_it_goes_on_at_the_rate_at_which_it_did_not_diverge(each_batch):
    kept = Memory()
    calm = sgd(epochs=3, batch=7, rate=0.08, head_rate=4.0)
    expected, report = train(calm, checkpoint=kept)
    assert report["rate"] in [0.08 / slowdown for slowdown in refine.SLOWDOWNS]
    dead = Memory(len(kept.written) - 2)
    with pytest.raises(KeyboardInterrupt):
        train(calm, checkpoint=dead)
    dead.dies_after = None
    found, again = train(calm, checkpoint=dead)
    assert again["rate"] == report["rate"]
    assert_same(states(found), states(expected))


def test_checkpoints_are_written_now_and_then_only():
    kept = Memory()
    train(Refinement(epochs=3, batch=7), checkpoint=kept)
    assert len(kept.written) == 1


def by_hand(settings, epochs, orders, net, layer, maps, labels):
    """Plain SGD with momentum on the whole network, written out."""
    parameters = [*net.parameters(), *layer.parameters()]
    rates = [settings.rate] * len(list(net.parameters())) + [settings.head_rate] * 2
    velocity = [torch.zeros_like(p) for p in parameters]
    for epoch in range(1, epochs + 1):
        for chosen in orders[epoch - 1]:
            logits = layer(net(maps[chosen]))
            gradients = torch.autograd.grad(functional.cross_entropy(logits, labels[chosen]), parameters)
            gradients = [g + settings.l1 * p.sign() * (p.ndim > 1) for g, p in zip(gradients, parameters, strict=True)]
            norm = torch.sqrt(sum(g.square().sum() for g in gradients))
            shrink = min(1.0, settings.clip / float(norm.detach())) if settings.clip else 1.0
            with torch.no_grad():
                for p, g, v, rate in zip(parameters, gradients, velocity, rates, strict=True):
                    v.mul_(settings.momentum).add_(shrink * g + settings.decay * p)
                    p.sub_(rate * settings.compute_rate_factor(epoch) * v)


@pytest.mark.parametrize("settings", [sgd(batch=10), sgd(batch=10, l1=1e-2, clip=0.05, decay=0.01)])
def test_steps_are_those_of_gradient_descent_with_momentum(settings, each_batch, monkeypatch):
    monkeypatch.setattr(refine, "PENALTIES", (1e-4,))
    maps, labels, held_out = images()
    kept = Memory()
    net = network()
    expected = copy.deepcopy(net).double()
    x, y = maps[~torch.from_numpy(held_out)], torch.from_numpy(labels)[~torch.from_numpy(held_out)]
    with torch.no_grad():
        features = net(x).flatten(1)
    layer = ClassifierLayer(features.shape[1], 3)
    layer.standardisation.fit(features)
    fit_classifier_layer(layer, features, y, 1e-4)
    layer = layer.double()
    epochs = 2
    orders = [
        np.array_split(np.random.default_rng(trainer.derive_seed(3, "refine", epoch)).permutation(len(x)), 4)
        for epoch in (1, 2)
    ]
    settings = Refinement(**{**settings.parameters(), "epochs": epochs})
    by_hand(settings, epochs, orders, expected, layer, x.double(), y)
    train(settings, net=net, checkpoint=kept)
    arrays, document = kept.written[-1]
    assert (document["state"]["epoch"], document["state"]["finished"]) == (epochs, True)
    for trained, theirs in (("network", expected), ("layer", layer)):
        for name, parameter in theirs.named_parameters():
            assert np.allclose(arrays[f"{trained}/{name}"], parameter.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["momentum", "adamw", "penalised"])
def test_a_loss_scale_changes_no_bit_where_nothing_overflows(which, monkeypatch):
    expected, report = train(SETTINGS[which])
    scales = scaled(monkeypatch, overflows=[])
    found, again = train(SETTINGS[which])
    assert set(scales) == {2.0**13}
    assert_same(states(found), states(expected))
    assert again == report


def test_a_step_whose_gradients_overflow_is_skipped_and_the_scale_halved(monkeypatch):
    whole = Memory()
    scales = scaled(monkeypatch, overflows=[0, 1])
    monkeypatch.setattr(trainer, "CHECKPOINT_INTERVAL", 0.0)
    train(sgd(epochs=1, batch=10), checkpoint=whole)
    assert scales == [2.0**13, 2.0**12, 2.0**11, 2.0**11]
    weights = [arrays["network/0.weight"] for arrays, _ in whole.written[:4]]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[1], weights[2])
    assert not np.array_equal(weights[2], weights[3])


def scaled(monkeypatch, overflows):
    """Let the loss be scaled as in fp16, and these gradients overflow; return where the scales of the loss go."""
    scales, compute = [], Gradients.__call__

    def call(self, batch, images, seed, scale=1.0):
        loss = compute(self, batch, images, seed, scale)
        if len(scales) in overflows:
            next(self.network.parameters()).grad[0] = math.inf
        scales.append(scale)
        return loss

    monkeypatch.setattr(Gradients, "__call__", call)
    monkeypatch.setattr(trainer, "_computes_in_fp16", lambda _: True)
    return scales


@pytest.mark.parametrize("which", ["momentum", "hidden", "distorted"])
def test_weights_are_the_same_whatever_the_number_of_threads(which):
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(states(train(SETTINGS[which])[0]))
    finally:
        torch.set_num_threads(threads)
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


def test_refit_trains_on_all_images_from_the_start_for_as_many_epochs_as_were_best():
    maps, labels, held_out = images()
    refitted, report = train(Refinement(epochs=4, batch=7, refit=True))
    alone, other = train(Refinement(epochs=4, batch=7))
    assert {**report, "train_loss": 0} == {**other, "train_loss": 0}
    assert report["best_epoch"] > 0
    assert np.isfinite(report["train_loss"])
    assert any(not np.array_equal(a, b) for a, b in zip(states(refitted).values(), states(alone).values(), strict=True))
    # What validation images hold reaches the refitted weights, and not the others.
    changed = maps.clone()
    changed[torch.from_numpy(held_out)] *= -1
    data = changed, labels, held_out
    report = train(Refinement(epochs=1, batch=7, refit=True), data=data)[1]
    assert report["best_epoch"] in (0, 1)


@pytest.mark.parametrize("how", ["loss", "weights"])
def test_a_refit_that_diverges_is_an_error_with_advice(how, monkeypatch):
    step = trainer.Trainer._step

    def diverging(self, *arguments):
        step(self, *arguments)
        if self.state.run == refine.REFIT:
            if how == "loss":
                raise DivergedError
            next(self.network.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(trainer.Trainer, "_step", diverging)
    with pytest.raises(LearningError, match=r"diverged on all training images .* --refine refit=false"):
        train(Refinement(epochs=1, batch=40, rate=0.01, refit=True))


def test_a_hidden_layer_gives_the_features():
    net, _ = train(Refinement(epochs=2, hidden=6))
    maps = images()[0]
    with torch.no_grad():
        features = net(maps)
    assert features.shape == (60, 6)
    assert bool((features.abs() <= 1).all())
    assert features.std(dim=0).min() > 0.1
