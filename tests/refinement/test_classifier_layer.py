import numpy as np
import pytest
import torch
from helpers.networks import noise
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from featbench.refinement.classifier_layer import ClassifierLayer, HiddenLayer, Standardisation, fit_classifier_layer


def spread(n=60, d=7, seed=0):
    """Features whose columns have any mean and any scale."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((n, d)) * 10.0 ** generator.integers(-1, 5, d) + generator.standard_normal(d)
    return torch.from_numpy(values).float()


def problem(n=150, d=20, classes=4, seed=0):
    """Features of classes that overlap, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = generator.standard_normal((classes, d))
    features = 3 * (centres[labels] + 1.5 * generator.standard_normal((n, d))) + 5
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


PENALTY = 1e-5


def fitted(features, labels, classes):
    layer = ClassifierLayer(features.shape[1], classes)
    layer.standardisation.fit(features)
    for _ in range(4):  # each goes on where the last one stopped
        fit_classifier_layer(layer, features, labels, PENALTY)
    return layer


def loss(layer, features, labels):
    return float(functional.cross_entropy(layer(features), labels).detach())


def test_standardised_features_have_mean_zero_and_rows_a_mean_square_of_one():
    features = spread()
    layer = Standardisation(7)
    layer.fit(features)
    rows = layer(features).double()
    assert rows.mean(dim=0).abs().max() < 1e-5
    assert rows.square().mean(dim=0) == pytest.approx(torch.full((7,), 1 / 7), rel=1e-4)
    assert float(rows.square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-4)


def test_other_images_are_standardised_by_the_statistics_of_these():
    features, others = spread(), spread(seed=1)
    layer = Standardisation(7)
    layer.fit(features)
    exact = features.double()
    expected = (others.double() - exact.mean(dim=0)) / exact.std(dim=0, correction=0) / np.sqrt(7)
    torch.testing.assert_close(layer(others).double(), expected, rtol=1e-3, atol=1e-5)


def test_maps_are_flattened():
    maps = noise(9, 3, 2, 2)
    layer = Standardisation(12)
    layer.fit(maps.flatten(1))
    assert torch.equal(layer(maps), layer(maps.flatten(1)))


@pytest.mark.parametrize("value", [0.0, 0.3, -1e6, 1e-20])
@pytest.mark.parametrize("rounding", [0.0, 3e-8])
def test_constant_features_get_no_weight_and_others_share_the_norm(value, rounding):
    features = torch.cat([noise(40, 4), value * (1 + rounding * noise(40, 2, seed=1))], dim=1)
    layer = Standardisation(6)
    layer.fit(features)
    assert layer.scale[4:].tolist() == [0, 0]
    assert float(layer(features).square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-4)
    assert bool(torch.isfinite(layer(features + 1e3)).all())


def test_rounding_beside_features_that_vary_gets_no_weight():
    layer = Standardisation(4)
    layer.fit(torch.cat([noise(40, 3), 1e-8 * noise(40, 1, seed=1)], dim=1))
    assert layer.scale[3] == 0


def test_small_features_are_no_constants():
    layer = Standardisation(4)
    layer.fit(1e-12 * noise(40, 4))
    assert float(layer(1e-12 * noise(40, 4)).square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-4)


def test_features_that_are_all_constant_become_zero():
    layer = Standardisation(3)
    layer.fit(torch.ones(5, 3))
    assert torch.equal(layer(torch.ones(5, 3)), torch.zeros(5, 3))


def test_one_image_has_no_deviation():
    layer = Standardisation(3)
    layer.fit(noise(1, 3))
    assert bool(torch.isfinite(layer(noise(4, 3))).all())


def test_statistics_are_state_and_not_parameters():
    layer = Standardisation(3)
    layer.fit(spread(d=3))
    other = Standardisation(3)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(noise(2, 3)), layer(noise(2, 3)))
    assert list(layer.parameters()) == []


def test_a_hidden_layer_is_tanh_of_standardised_features():
    features = spread()
    layer = HiddenLayer(7, 5, seed=3)
    layer.standardisation.fit(features)
    with torch.no_grad():
        layer.bias.copy_(noise(5))
    expected = np.tanh(
        layer.standardisation(features).numpy() @ layer.weight.detach().numpy().T + layer.bias.numpy(force=True)
    )
    np.testing.assert_allclose(layer(features).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_hidden_units_start_neither_linear_nor_saturated():
    features = noise(200, 300)
    layer = HiddenLayer(300, 200, seed=0)
    layer.standardisation.fit(features)
    units = torch.atanh(layer(features).detach().double().clamp(-0.9999999, 0.9999999))
    assert 0.8 < float(units.std()) < 1.2
    assert not layer.bias.detach().any()


def test_the_seed_alone_decides_the_hidden_weights():
    one, same, other = (HiddenLayer(6, 4, seed=seed).weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_before_anything_is_learned_all_classes_are_alike():
    layer, (features, labels) = ClassifierLayer(20, 4), problem()
    layer.standardisation.fit(features)
    assert not layer(features).detach().any()
    assert loss(layer, features, labels) == pytest.approx(np.log(4), rel=1e-6)


def test_logits_are_linear_in_standardised_features():
    features, labels = problem()
    layer = fitted(features, labels, 4)
    weight, bias = (parameter.detach().numpy() for parameter in (layer.linear.weight, layer.linear.bias))
    expected = layer.standardisation(features).numpy() @ weight.T + bias
    np.testing.assert_allclose(layer(features.view(-1, 5, 2, 2)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("d", [5, 20, 200])
def test_the_fit_is_that_of_logistic_regression(classes, d):
    features, labels = problem(d=d, classes=classes)
    layer = fitted(features, labels, classes)
    rows = layer.standardisation(features).double().numpy()
    theirs = LogisticRegression(C=1 / (2 * PENALTY * len(rows)), tol=1e-8, max_iter=5000).fit(rows, labels.numpy())
    found = layer(features).detach().double().softmax(dim=1).numpy()
    if classes == 2:
        # Of two classes scikit-learn fits one weight w, which is w/2 and -w/2 of ours with half of our penalty.
        theirs.set_params(C=1 / (PENALTY * len(rows))).fit(rows, labels.numpy())
    np.testing.assert_allclose(found, theirs.predict_proba(rows), atol=5e-3)


def test_a_fit_needs_no_gradients_around_it():
    features, labels = problem()
    with torch.no_grad():
        layer = fitted(features, labels, 4)
    assert loss(layer, features, labels) < 0.9 * np.log(4)
    assert all(parameter.requires_grad for parameter in layer.parameters())
