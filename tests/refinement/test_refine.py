import copy
import importlib
import re

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from featbench.errors import LearningError
from featbench.refinement.refine import Refinement, refine
from featbench.refinement.training_state import ValidationScore
from featbench.stages.architecture import Architecture
from featbench.stages.filters import Filters
from featbench.stages.stage import Stage

CPU = torch.device("cpu")
module = importlib.import_module("featbench.refinement.refine")


def toy(n=160, seed=0):
    """Two classes that differ in the direction of a faint grating, at a random phase, under noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    row, column = np.mgrid[:10, :10]
    along = np.where(labels[:, None, None] == 0, row, column)
    images = np.cos(2 * np.pi * along / 3 + 2 * np.pi * generator.random((n, 1, 1)))
    images = images + 0.8 * generator.standard_normal((n, 10, 10))
    return torch.from_numpy(images[:, None]).float(), labels.astype(np.int64)


def held_out(n):
    marked = np.zeros(n, dtype=bool)
    marked[: n // 4] = True
    return marked


def network(text="3F3-Rabs-PA4/4", seed=2, table=None, maps=1):
    spec = Architecture.parse(text).stages[0]
    shape = spec.bank.filters, maps if table is None else table.shape[1], spec.bank.size, spec.bank.size
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return nn.Sequential(Stage(spec, maps, Filters(weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)), table))


def sgd(**settings):
    return Refinement(optimizer="sgd", **settings)


def run(net, settings=None, *, seed=0, classes=2, data=None, progress=None, checkpoint=None):
    images, labels = data or toy()
    refined, report = refine(
        net,
        images,
        labels,
        held_out(len(labels)),
        classes=classes,
        seed=seed,
        device=CPU,
        settings=settings,
        progress=progress,
        checkpoint=checkpoint,
    )
    assert refined is net
    return report


def features(net, images):
    with torch.no_grad():
        return net.eval()(images).flatten(1).double().numpy()


def loss_of_a_fresh_classifier(net, images, labels):
    x = features(net, images)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    probabilities = LogisticRegression(C=1.0, tol=1e-8, max_iter=2000).fit(x, labels).predict_proba(x)
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def test_refined_features_tell_training_images_better():
    net, (images, labels) = network(), toy()
    train = ~held_out(len(labels))
    before = loss_of_a_fresh_classifier(net, images[train], labels[train])
    report = run(net, Refinement(epochs=25, rate=0.01))
    after = loss_of_a_fresh_classifier(net, images[train], labels[train])
    assert after < 0.5 * before
    assert report["validation_after"] > report["validation_before"] + 10


def test_refined_features_tell_new_images_better():
    net, start = network(), network()
    run(net, Refinement(epochs=25, rate=0.01))
    images, labels = toy(seed=1)
    new, new_labels = toy(400, seed=2)
    scores = []
    for extractor in (start, net):
        classifier = LogisticRegression(max_iter=2000).fit(features(extractor, images), labels)
        scores.append(classifier.score(features(extractor, new), new_labels))
    assert scores[1] > scores[0] + 0.05


def scripted(monkeypatch, scores):
    """Let the validation score of the start and of every epoch be these; return where the states that had them go."""
    given, states = iter(scores), []

    def score(refiner, *_):
        states.append(copy.deepcopy(refiner.network.state_dict()))
        return ValidationScore(*next(given))

    monkeypatch.setattr(module, "PENALTIES", (1e-5,))  # so that the start is scored once
    monkeypatch.setattr(module._Refiner, "_score", score)
    return states


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, -1.0), (0.6, -1.0), (0.8, -1.0), (0.7, -0.1), (0.7, -0.1)], 2),
        ([(0.5, -1.0), (0.6, -1.0), (0.8, -1.0), (0.8, -0.9), (0.8, -2.0)], 3),
        ([(0.5, -1.0), (0.6, -1.0), (0.7, -1.0), (0.8, -1.0), (0.9, -1.0)], 4),
        ([(0.9, -1.0), (0.6, -0.1), (0.8, -0.1), (0.9, -1.1), (0.9, -1.0)], 0),
    ],
)
def test_network_of_the_best_epoch_is_kept_the_start_included(scores, best, monkeypatch):
    states = scripted(monkeypatch, scores)
    net = network()
    report = run(net, Refinement(epochs=4))
    assert report == {
        "epochs": 4,
        "best_epoch": best,
        "validation_before": 100 * scores[0][0],
        "validation_after": 100 * scores[best][0],
        "rate": Refinement().rate,
    }
    assert len(states) == 5
    assert [same(net.state_dict(), state) for state in states] == [epoch == best for epoch in range(5)]


def test_kept_network_scores_as_reported():
    # The first layer is a logistic regression on the same features, so that the start can be scored again.
    net, (images, labels) = network(), toy()
    marked = held_out(len(labels))
    start = LogisticRegression(C=100, max_iter=5000).fit(features(net, images[~marked]), labels[~marked])
    before = 100 * start.score(features(net, images[marked]), labels[marked])
    report = run(net, Refinement(epochs=25, rate=0.01))
    after = LogisticRegression(C=100, max_iter=5000).fit(features(net, images[~marked]), labels[~marked])
    assert report["validation_before"] >= before - 5  # the penalty is chosen
    assert report["validation_after"] == pytest.approx(
        100 * after.score(features(net, images[marked]), labels[marked]), abs=5
    )


@pytest.mark.parametrize("rate", [1e-6, 0.001, 0.01])
def test_validation_score_is_never_below_that_of_the_start(rate):
    report = run(network(), Refinement(epochs=4, rate=rate))
    assert report["validation_after"] >= report["validation_before"]


def test_it_stops_after_so_many_epochs_without_improvement(monkeypatch):
    scripted(monkeypatch, [(0.5, -1.0), (0.5, -1.0), (0.6, -1.0)] + 9 * [(0.6, -1.0)])
    seen = []
    report = run(network(), Refinement(epochs=30, patience=3), progress=lambda *done: seen.append(done))
    assert (report["best_epoch"], report["epochs"]) == (2, 5)
    assert seen[0] == ("fitting a layer to the start", 0, 1)
    epochs = [(done, total) for what, done, total in seen if what.startswith("refining: loss ")]
    assert list(dict.fromkeys(epochs)) == [(epoch, 30) for epoch in range(1, 6)]
    assert re.fullmatch(r"refining: loss [\d.]+, validation 60\.0 %, \d+ images/s, \d+ s left, epoch", seen[-1][0])


def test_seed_decides_the_outcome():
    settings = Refinement(epochs=3)
    nets = [network(), network(), network()]
    reports = [run(net, settings, seed=seed) for net, seed in zip(nets, (1, 1, 2), strict=True)]
    assert reports[0] == reports[1]
    assert same(nets[0].state_dict(), nets[1].state_dict())
    assert not same(nets[0].state_dict(), nets[2].state_dict())


def test_global_random_state_plays_no_part():
    nets = [network(), network()]
    for number, net in enumerate(nets):
        torch.manual_seed(number)
        np.random.seed(number)
        run(net, Refinement(epochs=2))
    assert same(nets[0].state_dict(), nets[1].state_dict())


def test_validation_images_are_not_trained_on(monkeypatch):
    images, labels = toy()
    other = images.clone()
    other[torch.from_numpy(held_out(len(labels)))] = 0
    scripted(monkeypatch, 2 * [(0.0, 0.0), (0.1, 0.0), (0.2, 0.0)])
    nets = [network(), network()]
    for net, seen in zip(nets, (images, other), strict=True):
        run(net, Refinement(epochs=2), data=(seen, labels))
    assert same(nets[0].state_dict(), nets[1].state_dict())
    assert not same(nets[0].state_dict(), network().state_dict())


def test_connections_stay_as_they_were_drawn():
    images, labels = toy()
    both = torch.cat([images, images.flip(2)], dim=1)
    table = np.array([[1], [0]])
    net = network("4F3:1-Rabs-PA8/8", table=table, maps=2)
    weight = net[0].get_parameter("0.0.weight").detach().clone()
    run(net, Refinement(epochs=3), data=(both, labels))
    assert net[0].get_buffer("0.0.table").tolist() == [[1], [0]]
    assert net[0].get_parameter("0.0.weight").shape == (4, 1, 3, 3)
    assert not torch.equal(net[0].get_parameter("0.0.weight"), weight)
    changed = both.clone()
    changed[:, 0] = 0
    assert np.array_equal(features(net, changed)[:, :2], features(net, both)[:, :2])


def test_more_than_two_classes_and_more_than_one_stage():
    images, labels = toy()
    labels = labels + 2 * (np.arange(len(labels)) % 3 == 0)
    first, second = network("4F3-Rabs-N3-PA2/2"), network("4F3-Rabs-PA2/2", maps=4, seed=1)
    net = nn.Sequential(first, second)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    run(net, Refinement(epochs=2, patience=9), classes=4, data=(images, labels))
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
    assert before.keys() == dict(net.named_parameters()).keys()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("rate", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("batch", [16, 1000])
def test_diverging_is_an_error_or_leaves_finite_weights(optimizer, rate, epochs, batch):
    net = network()
    try:
        run(net, Refinement(epochs=epochs, rate=rate, head_rate=rate, batch=batch, optimizer=optimizer))
    except LearningError as error:
        assert "diverged" in str(error)
        assert "learning rate" in str(error)
    else:
        assert all(torch.isfinite(value).all() for value in net.state_dict().values())


def test_where_it_diverges_it_starts_again_with_smaller_rates():
    wild, settings = network("3F3-Rabs-PA8/8"), sgd(epochs=12, rate=8.0, head_rate=16.0)
    report = run(wild, settings)
    assert report["rate"] in [8.0 / slowdown for slowdown in (4, 16, 64)]
    calm = network("3F3-Rabs-PA8/8")
    slowdown = 8.0 / report["rate"]
    expected = run(calm, sgd(epochs=12, rate=8.0 / slowdown, head_rate=16.0 / slowdown))
    assert report == expected
    for ours, theirs in zip(wild.parameters(), calm.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_loss_that_is_not_finite_is_an_error():
    class AstrayInTraining(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x) * (float("nan") if self.training else 1)

    with pytest.raises(
        LearningError,
        match=r"diverged at every learning rate tried.*the loss is not finite; try smaller.*--refine rate=2e-05",
    ):
        run(AstrayInTraining(), sgd(epochs=1, rate=0.02))


def test_network_whose_features_are_not_finite_is_never_the_best():
    # Where no logit is finite every prediction is class 0, which is right about most of these validation images.
    images, labels = toy()
    labels = np.where(held_out(len(labels)), np.arange(len(labels)) % 7 == 0, labels).astype(np.int64)
    net = network("3C3-PA8/8")
    settings = sgd(epochs=1, rate=1e9, head_rate=1.0, batch=1000, decay=0.0)
    try:
        run(net, settings, data=(1e3 * images, labels))
    except LearningError as error:
        assert "diverged" in str(error)
    else:
        assert np.isfinite(features(net, 1e3 * images)).all()


class WithConstants(nn.Module):
    """A network and two features that are constant, up to rounding, until their parameters are refined."""

    def __init__(self, value, rounding):
        super().__init__()
        self.inner, self.rounding = network(), rounding
        self.offset = nn.Parameter(torch.tensor([value, -value]))

    def forward(self, x):
        return torch.cat([self.inner(x).flatten(1), self.offset + self.rounding * x[:, 0, 0, :2]], dim=1)


# Zero-mean filters over a background that all images share give features of about 1e-8, all of it rounding.
@pytest.mark.parametrize(("value", "rounding"), [(0.0, 0.0), (0.3, 0.0), (0.3, 3e-8), (0.0, 1e-8)])
def test_constant_features_do_no_harm(value, rounding):
    alone, beside = network(), WithConstants(value, rounding)
    expected = run(alone, Refinement(epochs=8, rate=0.01))
    report = run(beside, Refinement(epochs=8, rate=0.01))
    assert expected["validation_after"] > expected["validation_before"] + 5
    assert report["validation_after"] > report["validation_before"] + 5


@pytest.mark.parametrize("marked", [np.zeros(160, dtype=bool), np.ones(160, dtype=bool)])
def test_training_and_validation_images_are_both_needed(marked):
    images, labels = toy()
    with pytest.raises(LearningError, match="needs training images and validation images"):
        refine(network(), images, labels, marked, classes=2, seed=0, device=CPU)


def test_extractor_without_parameters_is_refused():
    images, labels = toy()
    with pytest.raises(LearningError, match="no parameters to refine"):
        refine(nn.Identity(), images, labels, held_out(160), classes=2, seed=0, device=CPU)
