import numpy as np
import pytest
import torch
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.features.extraction import extract
from featbench.learning.banks import fill_bank
from featbench.learning.networks import assemble, find_refusal, learn_stages
from featbench.learning.patch_matrix import PatchMatrix
from featbench.learning.patches import MapSource, PatchSource
from featbench.learning.unrolled import make_descent_weights, make_ista_weights
from featbench.plugins.lista import LcodLearner, ListaLearner
from featbench.registry import Registry
from featbench.sparse import feature_sign
from featbench.stages.architecture import Architecture
from featbench.stages.encoders import FilterBank
from featbench.stages.filters import Bank

CPU = torch.device("cpu")
QUICK = {"patches": 300, "dictionary_updates": 5, "updates": 10, "batch": 32}
LEARNERS = [ListaLearner, LcodLearner]
ALONE = np.array([[0]])


def sample(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def smooth(count=60, maps=1, side=10, seed=0):
    """Noise whose neighbouring pixels are alike, of another mean than zero."""
    noise = sample(count, maps, side + 1, side + 1, seed=seed)
    return noise[..., 1:, 1:] + noise[..., :-1, 1:] + noise[..., 1:, :-1] + 0.5


def source(images, size, seed=0):
    return PatchSource(MapSource(images, nn.Identity(), CPU), size, seed)


def learn(learner=ListaLearner, seed=0, bank=None, images=None, **parameters):
    bank = bank or Bank(12, 3, 1)
    images = smooth(maps=bank.fan_in) if images is None else images
    return fill_bank(learner(**{**QUICK, **parameters}), bank, source(images, bank.size), seed)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("bank", [Bank(12, 3, 1), Bank(6, 2, 3), Bank(3, 1, 4)])
def test_shapes_and_what_comes_along(learner, bank):
    filters = learn(learner, bank=bank)
    assert filters.weight.shape == filters.extras["decoder"].shape == bank.shape
    assert filters.extras["mixing"].shape == (bank.filters, bank.filters)
    assert filters.extras["threshold"].shape == (bank.filters,)
    assert set(filters.extras) == {"decoder", "mixing", "threshold"}
    assert not filters.bias.any()
    np.testing.assert_allclose(filters.extras["decoder"].flatten(1).norm(dim=1), np.ones(bank.filters), atol=1e-5)
    assert float(filters.weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-6


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize(("learner", "begin"), [(ListaLearner, make_ista_weights), (LcodLearner, make_descent_weights)])
def test_untrained_it_takes_the_steps_of_its_solver_on_centred_scaled_patches(learner, begin, maps, monkeypatch):
    monkeypatch.setattr("featbench.plugins.lista.train_unrolled", lambda *_: None)
    bank, images, fresh = Bank(6, 3, maps), 7 * smooth(maps=maps), 7 * smooth(3, maps, 5, seed=1)
    own = learner(**QUICK, lam=0.3, steps=2000)
    filters = fill_bank(own, bank, source(images, 3), 0)
    atoms = filters.extras["decoder"].flatten(1).T
    np.testing.assert_allclose(filters.extras["mixing"], begin(atoms, 0.3).mixing, atol=1e-5)
    np.testing.assert_allclose(filters.extras["threshold"], begin(atoms, 0.3).threshold, atol=1e-5)
    codes = own.encoder(filters, np.arange(maps)[None])(fresh).detach()
    scale = PatchMatrix.sample("lista", bank, source(images, 3), 300).scale
    for r in range(3):
        for c in range(3):
            patches = fresh[:, :, r : r + 3, c : c + 3].flatten(1)
            y = (patches - patches.mean(dim=1, keepdim=True)) / scale
            expected = feature_sign(y.double(), atoms.double(), 0.3, tolerance=1e-9).codes
            # So many steps are the whole way to the optimal codes.
            np.testing.assert_allclose(codes[:, :, r, c], expected, atol=2e-3)


@pytest.mark.parametrize(("learner", "steps"), [(ListaLearner, 1), (LcodLearner, 5)])
def test_training_brings_held_out_codes_closer_to_the_optimal_ones(learner, steps):
    images, bank = smooth(200), Bank(12, 3, 1)
    errors = []
    for updates in (1, 300):
        own = learner(**{**QUICK, "patches": 2000, "dictionary_updates": 30, "updates": updates, "steps": steps})
        filters = fill_bank(own, bank, source(images, 3), 0)
        matrix = PatchMatrix.sample("lista", bank, source(images, 3), 2000)
        held_out = source(smooth(seed=1), 3).sample(300)
        y = (held_out.flatten(1) - held_out.flatten(1).mean(dim=1, keepdim=True)) / matrix.scale
        wanted = feature_sign(y, filters.extras["decoder"].flatten(1).T, own.lam).codes
        codes = own.encoder(filters, ALONE)(held_out).detach().flatten(1)
        errors.append(float((codes - wanted).square().sum(dim=1).mean()))
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("learner", LEARNERS)
def test_without_steps_it_is_the_shrinkage_encoder(learner):
    filters, fresh = learn(learner, steps=0), smooth(2, seed=1)
    inner = FilterBank(filters, ALONE)(fresh)
    threshold = filters.extras["threshold"].view(1, -1, 1, 1)
    expected = inner.sign() * (inner.abs() - threshold).clamp_min(0)
    torch.testing.assert_close(learner(steps=0).encoder(filters, ALONE)(fresh), expected)


@pytest.mark.parametrize("learner", LEARNERS)
def test_part_of_s_or_a_low_rank_of_it_is_what_is_learned(learner):
    kept = learn(learner, keep=0.2).extras["mixing"]
    assert int((kept != 0).sum()) <= round(0.2 * 144)
    assert int((kept != 0).sum()) > 0.1 * 144
    values = np.linalg.svd(learn(learner, rank=3).extras["mixing"].numpy(), compute_uv=False)
    assert values[3] < 1e-5 * values[0]
    assert values[2] > 1e-3 * values[0]
    assert np.linalg.matrix_rank(learn(learner).extras["mixing"].numpy()) > 6


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("start", ["solver", "random"])
def test_seed_decides_the_filters_and_global_random_state_plays_no_part(learner, start):
    torch.manual_seed(1)
    one = learn(learner, seed=1, start=start)
    torch.manual_seed(2)
    same, other = learn(learner, seed=1, start=start), learn(learner, seed=2, start=start)
    for name in ("weight", "mixing", "threshold", "decoder"):
        assert torch.equal(one.tensors()[name], same.tensors()[name])
        assert not torch.equal(one.tensors()[name], other.tensors()[name])


@pytest.mark.parametrize("learner", LEARNERS)
def test_starts_differ(learner):
    assert not torch.allclose(learn(learner).extras["mixing"], learn(learner, start="random").extras["mixing"])


def test_brightness_and_contrast_of_the_images_are_taken_out():
    images, fresh = smooth(), smooth(2, seed=1)
    plain, changed = learn(images=images, updates=1), learn(images=4 * images + 3, updates=1)
    codes = [ListaLearner().encoder(f, ALONE)(x) for f, x in ((plain, fresh), (changed, 4 * fresh + 3))]
    torch.testing.assert_close(codes[0], codes[1], atol=1e-2, rtol=0)


# Stages.


@pytest.mark.parametrize("learner", LEARNERS)
def test_second_stage_with_a_connection_table_acts_within_groups(learner):
    architecture, own = Architecture.parse("4F3-Rabs-PA2/2 > 32F3:2-Rabs"), learner(**QUICK)
    images = smooth(40, side=16)
    stages = learn_stages(architecture, own, (1, 16, 16), images, seed=0, device=CPU)
    second = stages[1]
    assert second.table.shape == (2, 2)
    assert second.filters.extras["mixing"].shape == (32, 16)
    x = sample(2, 4, 5, 5)
    together = own.encoder(second.filters, second.table)(x)
    for group, seen in enumerate(second.table):
        half = slice(16 * group, 16 * group + 16)
        tensors = {name: tensor[half] for name, tensor in second.filters.tensors().items()}
        alone = own.encoder(featbench.Filters.from_tensors(tensors), np.array([[0, 1]]))(x[:, seen])
        torch.testing.assert_close(together[:, half], alone, atol=1e-5, rtol=1e-5)
    network = assemble(architecture, own, (1, 16, 16), stages)
    features = extract(network, images, CPU)
    assert features.shape == (40, 32 * 5 * 5)
    assert features.std() > 0
    network(images).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert {name.split(".")[-1] for name, _ in network.named_parameters()} == {"weight", "bias", "free", "threshold"}


@pytest.mark.parametrize("learner", ["lista", "lcod"])
@pytest.mark.parametrize("parameters", [{}, {"keep": 0.3}, {"rank": 2}])
def test_labels_refine_it(learner, parameters):
    pixels, labels = smooth(40)[:, 0].numpy(), np.arange(40) % 2
    extractor = featbench.Extractor("6F3-PA2", learner, learner_params={**QUICK, **parameters}, refined=True)
    assert np.isfinite(extractor.fit(pixels, labels).transform(pixels)).all()


# What is refused.


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_rank_that_s_cannot_have_is_refused(learner):
    own = learner(rank=9)
    assert own.refusal(Bank(9, 3, 1)) is None
    assert own.refusal(Bank(8, 3, 1)) == "rank 9 is more than S [8, 8] has"
    reason = find_refusal(Architecture.parse("16F3 > 8F3"), own, (1, 12, 12))
    assert reason == f"{own.name} in stage 2: rank 9 is more than S [8, 8] has"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"start": "zero"}, "start is solver or random, not 'zero'"),
        ({"lam": 0.0}, "lam > 0, rate > 0 and 0 < keep ≤ 1 are needed"),
        ({"rate": 0.0}, "lam > 0, rate > 0 and 0 < keep ≤ 1 are needed"),
        ({"keep": 0.0}, "lam > 0, rate > 0 and 0 < keep ≤ 1 are needed"),
        ({"keep": 1.1}, "lam > 0, rate > 0 and 0 < keep ≤ 1 are needed"),
        ({"steps": -1}, "steps and rank must not be negative"),
        ({"rank": -1}, "steps and rank must not be negative"),
        ({"rank": 3, "keep": 0.5}, "keep and rank are two ways to reduce S"),
        *(({name: 0}, "must be at least 1") for name in ("patches", "dictionary_updates", "updates", "batch")),
    ],
)
@pytest.mark.parametrize("learner", LEARNERS)
def test_parameters_without_sense_are_refused(learner, parameters, message):
    with pytest.raises(UsageError, match=message):
        learner.create(parameters)


@pytest.mark.parametrize("learner", LEARNERS)
def test_bad_patches_are_refused(learner):
    with pytest.raises(LearningError, match=f"{learner.name} learns from patches and was given none"):
        learner().filters(Bank(4, 5, 1), None, 0)
    with pytest.raises(LearningError, match="constant"):
        learn(learner, images=torch.full((10, 1, 9, 9), 0.3))
    with pytest.raises(LearningError, match=f"{learner.name} cannot learn 12 filters from 11 patches"):
        learn(learner, patches=11)
    images = smooth()
    images[:, 0, 4, 4] = float("nan")
    with pytest.raises(LearningError, match="not finite"):
        learn(learner, images=images)


def test_they_are_registered_as_unsupervised_learners():
    assert Registry().learner("lista") is ListaLearner
    assert Registry().learner("lcod") is LcodLearner
    assert (ListaLearner.family, LcodLearner.family) == ("unsupervised", "unsupervised")
    assert (ListaLearner().steps, LcodLearner().steps) == (3, 10)
