import numpy as np
import pytest
import torch
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.learning.banks import fill_bank
from featbench.learning.patch_matrix import PatchMatrix
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.autoencoder import ACTIVATIONS, KINDS, Autoencoder, AutoencoderNetwork, corrupt
from featbench.registry import Registry
from featbench.stages.filters import Bank

CPU = torch.device("cpu")
QUICK = {"patches": 500, "updates": 60, "batch": 32}


def images(count=60, maps=1, side=10, seed=0):
    noise = np.random.default_rng(seed).standard_normal((count, maps, side + 2, side + 2))
    return torch.from_numpy(sum(noise[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3))).float()


def source(maps, size):
    return PatchSource(MapSource(maps, nn.Identity(), CPU), size, 0)


def learn(bank=None, maps=None, seed=0, **parameters):
    bank = bank or Bank(10, 4, 1)
    maps = images(maps=bank.fan_in) if maps is None else maps
    return fill_bank(Autoencoder(**{**QUICK, **parameters}), bank, source(maps, bank.size), seed)


def trained(**parameters):
    """A model and rows it has not seen."""
    learner = Autoencoder(**{**QUICK, "lam": 0.01, "patches": 2000, "updates": 600, "batch": 64, **parameters})
    rows = PatchMatrix.sample("X", Bank(10, 4, 1), source(images(), 4), 2000).rows
    model = AutoencoderNetwork(10, 16, learner.activation, learner.tied, 0)
    learner._learn(model, rows, 0)
    return model, PatchMatrix.sample("X", Bank(10, 4, 1), source(images(seed=1), 4), 1000).rows


def error(model, seen, wanted):
    with torch.no_grad():
        return float((model.decode(model.encode(seen)) - wanted).square().mean())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_reconstruction_of_held_out_patches_improves(kind, tied, activation):
    errors = []
    for updates in (1, 50, 600):
        model, held_out = trained(kind=kind, tied=tied, activation=activation, updates=updates)
        errors.append(error(model, held_out, held_out))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.5


def test_denoising_restores_better_than_the_plain_kind():
    generator = torch.Generator().manual_seed(0)
    (plain, held_out), (denoising, _) = trained(kind="plain"), trained(kind="denoising", noise=0.4)
    corrupted = corrupt(held_out, 0.4, generator)
    assert error(denoising, corrupted, held_out) < 0.95 * error(plain, corrupted, held_out)
    assert error(plain, held_out, held_out) < error(denoising, held_out, held_out)


def test_contraction_shrinks_the_jacobian():
    (plain, held_out), (contractive, _) = trained(kind="plain"), trained(kind="contractive", lam=0.1)
    found = [model.compute_contraction(model.encode(held_out)).mean().detach() for model in (plain, contractive)]
    assert found[1] < 0.8 * found[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_contraction_is_the_squared_norm_of_autograds_jacobian(activation):
    model = AutoencoderNetwork(7, 5, activation, True, 0).double()
    nn.init.normal_(model.bias, generator=torch.Generator().manual_seed(0))
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 5)))
    expected = []
    for row in rows:
        jacobian = torch.autograd.functional.jacobian(lambda x: model.encode(x[None])[0], row)
        expected.append(float(jacobian.square().sum()))
    np.testing.assert_allclose(model.compute_contraction(model.encode(rows)).detach(), expected, rtol=1e-10)


def test_noise_sets_its_part_of_the_values_to_zero():
    rows = torch.ones(400, 50)
    corrupted = corrupt(rows, 0.3, torch.Generator().manual_seed(0))
    assert set(corrupted.unique().tolist()) == {0.0, 1.0}
    assert float(corrupted.mean()) == pytest.approx(0.7, abs=0.02)
    assert torch.equal(corrupt(rows, 0.0, torch.Generator()), rows)


def test_without_noise_denoising_is_the_plain_kind_and_so_is_contraction_without_lam():
    plain = learn(kind="plain")
    assert torch.equal(learn(kind="contractive", lam=0.0).weight, plain.weight)
    assert not torch.equal(learn(kind="contractive").weight, plain.weight)
    assert not torch.equal(learn(kind="denoising").weight, plain.weight)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_what_f_stands_for_is_the_hidden_layer(monkeypatch, activation, centre, factor):
    seen = {}
    original = Autoencoder._learn

    def remember(self, model, rows, seed):
        original(self, model, rows, seed)
        seen.update(model=model, rows=rows)

    monkeypatch.setattr(Autoencoder, "_learn", remember)
    maps = factor * images()
    filters = learn(maps=maps, activation=activation, centre=centre)
    encoder = Autoencoder(activation=activation).encoder(filters, np.array([[0]]))
    codes = encoder(source(maps, 4).sample(500)).flatten(1)
    torch.testing.assert_close(codes, seen["model"].encode(seen["rows"]), atol=1e-4, rtol=1e-3)


def test_decoder_is_the_encoder_if_tied():
    tied, free = learn(), learn(tied=False)
    likeness = torch.cosine_similarity(tied.weight.flatten(1), centred(tied.extras["decoder"]).flatten(1))
    assert float(likeness.min()) > 0.999
    assert float(torch.cosine_similarity(free.weight.flatten(1), free.extras["decoder"].flatten(1)).max()) < 0.999


def centred(filters):
    return filters - filters.mean(dim=(1, 2, 3), keepdim=True)


def test_filters_see_no_offset_unless_asked_to():
    assert float(learn().weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-5
    assert float(learn(centre=False).weight.mean(dim=(1, 2, 3)).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides_the_filters(kind):
    one, same, other = (learn(seed=seed, kind=kind) for seed in (1, 1, 2))
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
    assert not torch.equal(one.weight, other.weight)


def test_it_learns_where_gradients_are_off():
    with torch.no_grad():
        filters = learn()
    assert torch.equal(filters.weight, learn().weight)


@pytest.mark.parametrize("bank", [Bank(4, 1, 1), Bank(4, 1, 3), Bank(20, 3, 1), Bank(6, 5, 4)])
@pytest.mark.parametrize("tied", [True, False])
def test_shapes(bank, tied):
    filters = learn(bank, tied=tied)
    assert filters.weight.shape == filters.extras["decoder"].shape == bank.shape


def test_divergence_is_said():
    with pytest.raises(LearningError, match=r"the auto-encoder diverged: a rate smaller than 1e\+30 is needed"):
        learn(rate=1e30)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "sparse"}, "kind is one of plain, denoising, contractive, not 'sparse'"),
        ({"activation": "relu"}, "activation is one of sigmoid, tanh, not 'relu'"),
        ({"noise": 1.0}, "noise < 1"),
        ({"noise": -0.1}, "0 ≤ noise"),
        ({"lam": -1.0}, "lam ≥ 0"),
        ({"rate": 0.0}, "rate > 0"),
        *(({name: 0}, "must be at least 1") for name in ("patches", "updates", "batch")),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(UsageError, match=f"autoencoder: .*{message}"):
        Autoencoder.create(parameters)


def test_bad_patches_are_refused():
    with pytest.raises(LearningError, match="the auto-encoder learns from patches and was given none"):
        Autoencoder().filters(Bank(4, 5, 1), None, 0)
    with pytest.raises(LearningError, match="constant"):
        learn(maps=torch.full((10, 1, 9, 9), 0.3))
    with pytest.raises(LearningError, match="the auto-encoder cannot learn 10 filters from 5 patches"):
        learn(patches=5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_stages_and_refinement(activation):
    pixels, labels = images(40, side=16)[:, 0].numpy(), np.arange(40) % 2
    parameters = {"patches": 300, "updates": 20, "activation": activation}
    extractor = featbench.Extractor(
        "8F5-Rabs-N3-PA2/2 > 16F3:4-Rabs-PA2", "autoencoder", learner_params=parameters, refined=True
    )
    assert np.isfinite(extractor.fit(pixels, labels).transform(pixels)).all()


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("autoencoder") is Autoencoder
    assert Autoencoder.family == "unsupervised"
