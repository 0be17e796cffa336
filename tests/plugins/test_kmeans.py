import numpy as np
import pytest
import torch
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.learning.banks import fill_bank
from featbench.learning.kmeans import draw_first_centroids, find_nearest_centroids, learn_centroids
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.kmeans import KMeans, KMeansHard
from featbench.registry import Registry
from featbench.stages.filters import Bank, Filters

CPU = torch.device("cpu")
QUICK = {"patches": 500, "iterations": 10}


def images(count=40, maps=1, side=10, seed=0):
    noise = np.random.default_rng(seed).standard_normal((count, maps, side + 1, side + 1))
    smooth = noise[..., 1:, 1:] + noise[..., :-1, 1:] + noise[..., 1:, :-1] + noise[..., :-1, :-1]
    return torch.from_numpy(smooth + 0.5).float()


def source(maps, size):
    return PatchSource(MapSource(maps, nn.Identity(), CPU), size, 0)


def learn(learner=None, bank=None, maps=None, seed=0):
    bank = bank or Bank(6, 4, 1)
    maps = images(maps=bank.fan_in) if maps is None else maps
    return fill_bank(learner or KMeans(**QUICK), bank, source(maps, bank.size), seed)


def plain_distances(learner, filters, maps, patches):
    """‖x - c_k‖ of every patch [n, d] of the maps, patch by patch in double precision, from the patches up."""
    rows = source(maps, filters.weight.shape[2]).sample(learner.patches).flatten(1).numpy().astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    added = learner.contrast * (rows**2).mean()
    rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True) + added)
    matrix, mean = np.eye(rows.shape[1]), np.zeros(rows.shape[1])
    if learner.whiten:
        mean = rows.mean(axis=0)
        variances, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
        kept = np.argsort(variances)[::-1][: learner.components]
        vectors, variances = vectors[:, kept], np.maximum(variances[kept], 0)
        matrix = vectors @ np.diag((variances + learner.epsilon) ** -0.5) @ vectors.T
    centroids = (filters.extras["decoder"].flatten(1).numpy().astype(np.float64) - mean) @ matrix.T
    found = np.empty((len(patches), len(centroids)))
    for i, patch in enumerate(patches.numpy().astype(np.float64)):
        x = (patch - patch.mean()) / np.sqrt(patch.var() + added)
        x = matrix @ (x - mean)
        found[i] = [np.linalg.norm(x - c) for c in centroids]
    return found


def windows(maps, size):
    """Patches [n × positions, d] of maps [n, maps, h, w], position after position of one image after another."""
    unfolded = nn.functional.unfold(maps, size)
    return unfolded.transpose(1, 2).flatten(0, 1)


def as_rows(codes):
    return codes.flatten(2).transpose(1, 2).flatten(0, 1).detach().numpy()


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize(
    "parameters",
    [{}, {"whiten": False}, {"components": 5}, {"epsilon": 0.01, "contrast": 0.1}],
    ids=["default", "plain", "components", "other"],
)
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_codes_are_those_of_a_plain_computation_patch_by_patch(maps, parameters, factor):
    learner, bank = KMeans(**QUICK, **parameters), Bank(6, 4, maps)
    training, fresh = factor * images(maps=maps), factor * images(2, maps, seed=1)
    filters = learn(learner, bank, training)
    z = plain_distances(learner, filters, training, windows(fresh, 4))
    table = np.arange(maps)[None, :]
    triangle = as_rows(learner.encoder(filters, table)(fresh))
    np.testing.assert_allclose(triangle, np.maximum(0, z.mean(axis=1, keepdims=True) - z), atol=2e-4)
    hard = as_rows(KMeansHard(**QUICK, **parameters).encoder(filters, table)(fresh))
    assert set(np.unique(hard)) == {0, 1}
    assert (hard.sum(axis=1) == 1).all()
    assert (hard.argmax(axis=1) == z.argmin(axis=1)).mean() > 0.99


@pytest.mark.parametrize("parameters", [{}, {"whiten": False}, {"components": 4}])
def test_each_group_of_a_connection_table_has_its_own_centroids_and_statistics(parameters):
    learner, table = KMeans(**QUICK, **parameters), np.array([[0, 2], [3, 1]])
    training, fresh = images(maps=4), images(3, 4, seed=1)
    # Groups whose scales and ranks differ: map 2 sees little, map 3 is loud.
    training[:, 2], training[:, 3] = 0.0, 50 * training[:, 3]
    fresh[:, 2], fresh[:, 3] = 0.0, 50 * fresh[:, 3]
    groups = [learn(learner, Bank(5, 3, 2), training[:, maps], seed) for seed, maps in enumerate(table)]
    together = learner.encoder(Filters.concatenate(groups), table)(fresh)
    for index, (filters, maps) in enumerate(zip(groups, table, strict=True)):
        alone = learner.encoder(filters, np.array([[0, 1]]))(fresh[:, maps])
        torch.testing.assert_close(together[:, 5 * index : 5 * index + 5], alone, atol=1e-4, rtol=1e-4)


def test_flat_patches_get_finite_codes_and_gradients():
    filters = learn()
    encoder = KMeans().encoder(filters, np.array([[0]]))
    for value in (0.0, 3.0):
        maps = torch.full((2, 1, 8, 8), value, requires_grad=True)
        codes = encoder(maps)
        codes.sum().backward()
        assert torch.isfinite(codes).all()
        assert torch.isfinite(maps.grad).all()


@pytest.mark.parametrize("whiten", [True, False])
def test_gradients_are_finite_where_a_patch_is_a_centroid(whiten):
    learner = KMeans(whiten=whiten, **QUICK)
    filters = learn(learner, Bank(1, 4, 1))
    encoder = learner.encoder(filters, np.array([[0]]))
    maps = images(1, side=4)
    for start in (filters.extras["decoder"], maps):
        maps = start.clone().requires_grad_()
        encoder[0](maps).sum().backward()
        assert torch.isfinite(maps.grad).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


@pytest.mark.parametrize("whiten", [True, False])
def test_gradients_are_those_of_finite_differences(whiten):
    learner = KMeans(whiten=whiten, **QUICK)
    encoder = learner.encoder(learn(learner), np.array([[0]])).double()
    maps = images(1, side=5, seed=3).double().requires_grad_()
    assert torch.autograd.gradcheck(encoder, (maps,), atol=1e-5)


def test_codes_do_not_depend_on_the_batch_nor_on_brightness():
    encoder = KMeans().encoder(learn(), np.array([[0]]))
    maps = images(5, seed=1)
    together = encoder(maps)
    torch.testing.assert_close(encoder(maps[2:3]), together[2:3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder(maps + 100), together, atol=1e-2, rtol=1e-2)


def test_filters_score_as_the_distances_do():
    learner, maps = KMeans(**QUICK, whiten=False), images()
    filters = learn(learner, maps=maps)
    # ‖x - c‖² = ‖x‖² - 2 (w·x' + b), where x' is the normalised patch.
    centroids = filters.extras["decoder"].flatten(1)
    torch.testing.assert_close(filters.bias, -centroids.square().sum(dim=1) / 2)
    torch.testing.assert_close(filters.weight.flatten(1) * filters.extras["scale"], centroids, atol=1e-5, rtol=1e-4)


def clusters(count=300, seed=0):
    generator = np.random.default_rng(seed)
    centres = 10 * np.eye(5)
    return torch.from_numpy(centres[generator.integers(5, size=count)] + 0.1 * generator.standard_normal((count, 5)))


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_found(seed):
    found = learn_centroids(clusters(), 5, 50, seed)
    assert sorted(found.argmax(dim=1).tolist()) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.amax(dim=1), 10, atol=0.1)


def test_lloyds_updates_lower_the_distances_to_a_fixed_point():
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((5000, 3)))
    costs = [
        float(find_nearest_centroids(rows, learn_centroids(rows, 10, steps, 0))[0].sum()) for steps in (1, 3, 10, 300)
    ]
    assert costs == sorted(costs, reverse=True)
    centroids = learn_centroids(rows, 10, 300, 0)
    sides = find_nearest_centroids(rows, centroids)[1]
    for k in range(10):
        torch.testing.assert_close(centroids[k], rows[sides == k].mean(dim=0))


def test_distances_to_the_nearest_centroid_are_exact():
    generator = np.random.default_rng(0)
    rows, centroids = generator.standard_normal((5000, 4)), generator.standard_normal((7, 4))
    expected = ((rows[:, None] - centroids) ** 2).sum(axis=2)
    distances, sides = find_nearest_centroids(torch.from_numpy(rows), torch.from_numpy(centroids))
    np.testing.assert_allclose(distances, expected.min(axis=1), atol=1e-10)
    np.testing.assert_array_equal(sides, expected.argmin(axis=1))


def test_empty_clusters_start_again(monkeypatch):
    rows = clusters()
    # Four of five centroids start so far away that no patch is theirs.
    start = torch.full((5, 5), 1e3, dtype=torch.float64) * torch.arange(5.0)[:, None]
    monkeypatch.setattr("featbench.learning.kmeans.draw_first_centroids", lambda *_: start.clone())
    sides = find_nearest_centroids(rows, learn_centroids(rows, 5, 50, 0))[1]
    assert sorted(set(sides.tolist())) == [0, 1, 2, 3, 4]


def test_first_centroids_are_distinct_patches_and_far_apart():
    rows = clusters()
    assert sorted(draw_first_centroids(rows, 5, 0).argmax(dim=1).tolist()) == [0, 1, 2, 3, 4]
    repeated = rows[:8].repeat(20, 1)
    chosen = draw_first_centroids(repeated, 8, 0)
    assert len(torch.unique(chosen, dim=0)) == 8
    with pytest.raises(LearningError, match="only 8 distinct vectors, too few for 9 centroids"):
        draw_first_centroids(repeated, 9, 0)


def test_decoder_holds_the_means_of_normalised_patches():
    learner, maps = KMeans(whiten=False, **QUICK), images()
    filters = learn(learner, maps=maps)
    whitened = learn(KMeans(epsilon=1e-6, **QUICK), maps=maps)
    for found in (filters, whitened):
        decoder = found.extras["decoder"].flatten(1)
        assert float(decoder.mean(dim=1).abs().max()) < 1e-4
        assert 0.1 < float(decoder.square().mean().sqrt()) < 1


@pytest.mark.parametrize("learner", [KMeans(**QUICK), KMeans(whiten=False, **QUICK)])
def test_seed_decides_the_filters(learner):
    one, same, other = (learn(learner, seed=seed) for seed in (1, 1, 2))
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
    assert not torch.equal(one.weight, other.weight)


def test_filters_of_one_pixel():
    assert "no contrast" in KMeans().refusal(Bank(4, 1, 1))
    assert KMeans().refusal(Bank(4, 1, 2)) is None
    assert KMeans().refusal(Bank(4, 3, 1)) is None
    assert learn(bank=Bank(4, 1, 3)).weight.shape == (4, 3, 1, 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"contrast": 0.0}, "contrast and epsilon must be positive"),
        ({"epsilon": -1.0}, "contrast and epsilon must be positive"),
        ({"patches": 0}, "must be at least 1"),
        ({"iterations": 0}, "must be at least 1"),
        ({"components": 0}, "must be at least 1"),
    ],
)
@pytest.mark.parametrize("learner", [KMeans, KMeansHard])
def test_parameters_without_sense_are_refused(learner, parameters, message):
    with pytest.raises(UsageError, match=message):
        learner.create(parameters)


def test_bad_patches_are_refused():
    with pytest.raises(LearningError, match="K-means learns from patches and was given none"):
        KMeans().filters(Bank(4, 5, 1), None, 0)
    with pytest.raises(LearningError, match="constant"):
        learn(maps=torch.full((10, 1, 9, 9), 0.3))
    with pytest.raises(LearningError, match="K-means cannot learn 6 filters from 5 patches"):
        learn(KMeans(patches=5))
    with pytest.raises(LearningError, match="distinct vectors"):
        learn(maps=images(2, side=4))


@pytest.mark.parametrize("learner", ["kmeans", "kmeans-hard"])
def test_two_stages(learner):
    pixels = images(40, side=16)[:, 0].numpy()
    extractor = featbench.Extractor("8F5-N3-PA2/2 > 32F3:4-PA2", learner, learner_params={"patches": 300})
    assert np.isfinite(extractor.fit(pixels).transform(pixels)).all()


def test_labels_refine_the_triangle_code_and_not_the_hard_one():
    pixels, labels = images(40, side=10)[:, 0].numpy(), np.arange(40) % 2
    extractor = featbench.Extractor("4F3-PA2", "kmeans", learner_params={"patches": 300}, refined=True)
    assert np.isfinite(extractor.fit(pixels, labels).transform(pixels)).all()
    with pytest.raises(UsageError, match="kmeans-hard is not differentiable"):
        featbench.Extractor("4F3-PA2", "kmeans-hard", refined=True).fit(pixels, labels)


def test_they_are_registered_as_unsupervised_learners():
    assert Registry().learner("kmeans") is KMeans
    assert Registry().learner("kmeans-hard") is KMeansHard
    assert KMeans.family == KMeansHard.family == "unsupervised"
