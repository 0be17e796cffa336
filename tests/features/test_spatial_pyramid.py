"""Spatial pyramids against loops over positions and cells."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.classification.intersection_kernel import intersection_gram
from featbench.errors import FeatureError
from featbench.features import spatial_pyramid as module
from featbench.features.coding import Codebook, Coding
from featbench.features.rows import LocalVectors, PackedMaps, Rows
from featbench.features.spatial_pyramid import SpatialPyramid, VectorSample, encode_block, encode_images, learn_codebook

CPU = torch.device("cpu")


def gaussian(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def book(kind="hard", words=5, d=3, **parameters):
    return Codebook(Coding(kind, **parameters), gaussian(words, d, seed=9), 1.0)


def cell(position, count, level):
    return int(np.floor((position + 0.5) * 2**level / count))


def naive_level(codes, level, pooling):
    """Pool codes [rows, columns, words] over the 2^level × 2^level cells, position by position."""
    rows, columns, words = codes.shape
    seen = {}
    for i in range(rows):
        for j in range(columns):
            seen.setdefault((cell(i, rows, level), cell(j, columns, level)), []).append(codes[i, j])
    reduce = {"sum": np.sum, "max": np.max}[pooling]
    cells = [(i, j) for i in range(2**level) for j in range(2**level)]
    return np.concatenate([reduce(seen[one], axis=0) if one in seen else np.zeros(words) for one in cells])


def naive_row(maps, pyramid, codebook):
    codes = codebook.code(maps.flatten(0, 1)).view(*maps.shape[:2], -1).double().numpy()
    return np.concatenate([naive_level(codes, level, pyramid.pooling) for level in pyramid.shown_levels])


@pytest.mark.parametrize("kind", ["hard", "llc"])
@pytest.mark.parametrize("pooling", ["sum", "max"])
@pytest.mark.parametrize("levels", [0, 1, 2, 3])
@pytest.mark.parametrize("single", [False, True])
def test_rows_are_those_of_a_loop_over_positions(kind, pooling, levels, single):
    pyramid = SpatialPyramid(words=5, levels=levels, single=single, pooling=pooling, normalise="none")
    codebook = book(kind, neighbours=2)
    # Fewer positions than cells among them, and as many rows as columns or not.
    for rows, columns in ((8, 8), (9, 7), (1, 1), (2, 2), (3, 5), (1, 11), (13, 10)):
        maps = gaussian(2, rows, columns, 3)
        found = pyramid.encode(maps, codebook)
        assert found.shape == (2, pyramid.length) and found.dtype == torch.float32
        expected = np.stack([naive_row(one, pyramid, codebook) for one in maps])
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 4), st.integers(0, 10**6))
def test_each_level_counts_every_vector_once(rows, columns, levels, seed):
    pyramid = SpatialPyramid(words=4, levels=levels, normalise="none")
    row = pyramid.encode(gaussian(1, rows, columns, 3, seed=seed), book(words=4))[0]
    starts = np.cumsum([4 * cells for cells in pyramid.cells])[:-1]
    assert [float(level.sum()) for level in np.split(row.numpy(), starts)] == [rows * columns] * (levels + 1)


@pytest.mark.parametrize(("levels", "cells"), [(0, [1]), (1, [1, 4]), (2, [1, 4, 16]), (3, [1, 4, 16, 64])])
def test_cells_and_weights_of_levels(levels, cells):
    pyramid = SpatialPyramid(words=3, levels=levels)
    assert pyramid.cells == cells and pyramid.length == 3 * sum(cells)
    expected = [1 / 2**levels] + [1 / 2 ** (levels - level + 1) for level in range(1, levels + 1)]
    assert levels != 2 or expected == [1 / 4, 1 / 4, 1 / 2]
    np.testing.assert_array_equal(pyramid.make_weights(), np.repeat(expected, [3 * count for count in cells]))
    alone = SpatialPyramid(words=3, levels=levels, single=True)
    assert alone.cells == cells[-1:]
    np.testing.assert_array_equal(alone.make_weights(), np.ones(3 * cells[-1]))


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_the_kernel_weighs_new_matches_by_the_size_of_their_cells(levels):
    pyramid, codebook = SpatialPyramid(words=5, levels=levels), book()
    a, b = gaussian(1, 6, 9, 3)[0], gaussian(1, 6, 9, 3, seed=1)[0]
    words = [codebook.code(image.flatten(0, 1)).view(6, 9, 5).numpy() for image in (a, b)]
    matches = [sum(np.minimum(*(naive_level(codes, level, "sum") for codes in words))) for level in range(levels + 1)]
    # Equation 2 of the paper: what matches in a cell of level l, and in none of the finer ones, counts 1/2^(L-l).
    new = [*(matches[level] - matches[level + 1] for level in range(levels)), matches[levels]]
    expected = sum(count / 2 ** (levels - level) for level, count in enumerate(new)) / 54
    rows = pyramid.encode(torch.stack([a, b]), codebook).numpy() * pyramid.make_weights()
    gram = intersection_gram(rows, rows)
    assert gram[0, 1] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gram.diagonal(), 1, rtol=1e-6)


@pytest.mark.parametrize(("normalise", "order"), [("l1", 1), ("l2", 2)])
def test_rows_are_divided_by_their_norm_and_zeros_stay(normalise, order):
    codebook = book("sparse", lam=0.5)
    maps = gaussian(3, 4, 4, 3)
    maps[1] = 0
    plain, count, found = (
        SpatialPyramid(words=5, levels=1, pooling="max", normalise=kind).encode(maps, codebook).numpy()
        for kind in ("none", "count", normalise)
    )
    np.testing.assert_allclose(np.linalg.norm(found, ord=order, axis=1), [1, 0, 1], rtol=1e-5)
    np.testing.assert_allclose(found[0] * np.linalg.norm(plain[0], ord=order), plain[0], rtol=1e-5)
    np.testing.assert_allclose(16 * count, plain, rtol=1e-6)


@pytest.mark.parametrize("macro", [1, 2, 3])
def test_neighbours_are_joined_row_by_row(macro):
    maps = gaussian(2, 5, 4, 3)
    joined = SpatialPyramid(macro=macro).join(maps)
    assert joined.shape == (2, 6 - macro, 5 - macro, macro**2 * 3)
    for i in range(6 - macro):
        for j in range(5 - macro):
            assert torch.equal(joined[:, i, j], maps[:, i : i + macro, j : j + macro].reshape(2, -1))


def test_too_few_neighbours_are_refused():
    with pytest.raises(FeatureError, match="maps of 5×2 positions have no macrofeatures of 3×3"):
        SpatialPyramid(macro=3).join(gaussian(1, 5, 2, 3))


def packed(grids, d=3, seed=0):
    grids = np.array(grids, dtype=np.int64)
    return PackedMaps.of(gaussian(int(grids.prod(axis=1).sum()), d, seed=seed).numpy(), grids)


def test_images_of_several_sizes_are_encoded_in_order(monkeypatch):
    grids = [(4, 4), (4, 4), (2, 7), (7, 2), (4, 4), (1, 1)]
    maps, pyramid, codebook = packed(grids), SpatialPyramid(words=5, levels=2), book()
    expected, start = [], 0
    for rows, columns in grids:
        image = torch.from_numpy(maps.array[start : start + rows * columns]).view(rows, columns, 3)
        expected.append(naive_row(image, pyramid, codebook) / (rows * columns))
        start += rows * columns
    for values in (2**24, 60, 1):
        monkeypatch.setattr("featbench.features.rows.BLOCK_VALUES", values)
        monkeypatch.setattr(module, "BLOCK_CODES", values)
        np.testing.assert_allclose(encode_images(maps, pyramid, codebook), expected, rtol=1e-6)
    some = maps.select(np.array([3, 0]))
    np.testing.assert_allclose(encode_images(some, pyramid, codebook), [expected[3], expected[0]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_images_of_one_size_are_encoded_from_their_maps(dtype):
    maps = gaussian(4, 3, 5, 6).numpy().astype(dtype)
    rows = Rows(maps.reshape(4, -1), np.array([2, 0, 3]), (3, 5, 6)).to_local_maps()
    pyramid, codebook = SpatialPyramid(words=5, levels=1, normalise="none"), book()
    images = torch.from_numpy(maps[[2, 0, 3]].astype(np.float32)).permute(0, 2, 3, 1)
    found = encode_images(rows, pyramid, codebook)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [naive_row(one, pyramid, codebook) for one in images], rtol=1e-6)


def test_a_sample_has_as_many_vectors_of_each_image_at_distinct_positions():
    maps = torch.arange(4 * 30).view(4, 5, 6, 1).float()
    sample = VectorSample(SpatialPyramid(samples=40), 4, seed=0)
    for some in maps.split(2):
        sample.add(some)
    drawn = sample.vectors()[:, 0].numpy()
    assert len(np.unique(drawn)) == 40
    assert np.array_equal(np.bincount(drawn.astype(int) // 30), [10] * 4)
    together = VectorSample(SpatialPyramid(samples=40), 4, seed=0)
    together.add(maps)
    assert np.array_equal(together.vectors()[:, 0], drawn)
    # Shares are rounded up, and what is too much is left out again; a small image gives all it has.
    uneven = VectorSample(SpatialPyramid(samples=37), 4, seed=0)
    uneven.add(maps)
    assert len(np.unique(uneven.vectors())) == 37
    small = VectorSample(SpatialPyramid(samples=1000, macro=2), 4, seed=0)
    small.add(maps)
    assert small.vectors().shape == (4 * 20, 4)


def test_seed_decides_the_codebook():
    maps, pyramid = packed([(5, 5)] * 6), SpatialPyramid(words=4, samples=60)
    one, same, other = (learn_codebook(maps, pyramid, seed, CPU).words for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e30])
def test_the_image_with_values_that_are_not_finite_is_named(bad, monkeypatch):
    maps, pyramid, codebook = (
        packed([(2, 2), (1, 5), (3, 3), (2, 2)]),
        SpatialPyramid(words=2, samples=4),
        book(words=2),
    )
    maps.array[9, 1] = bad  # the first vector of image 2
    for values in (2**24, 1):
        monkeypatch.setattr("featbench.features.rows.BLOCK_VALUES", values)
        with pytest.raises(FeatureError, match="local vectors of image 2 are not finite"):
            learn_codebook(maps, pyramid, 0, CPU)
    with pytest.raises(FeatureError, match="local vectors of image 1 are not finite"):
        encode_block(LocalVectors(maps.array[4:], maps.grids[1:]), pyramid, codebook)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"words": 0}, "codebook, macro and samples must be at least 1"),
        ({"macro": 0}, "must be at least 1"),
        ({"samples": 0}, "must be at least 1"),
        ({"levels": -1}, "levels must be between 0 and 6, not -1"),
        ({"levels": 7}, "levels must be between 0 and 6, not 7"),
        ({"pooling": "mean"}, "pooling must be one of sum, max, not 'mean'"),
        ({"normalise": "l3"}, "normalise must be one of count, l1, l2, none, not 'l3'"),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        SpatialPyramid(**parameters)
