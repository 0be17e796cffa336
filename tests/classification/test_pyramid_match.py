import numpy as np
import pytest

from featbench.classification.pyramid_match import FeatureSpace, TrainingBins
from featbench.classifiers.pyramid_match_svm import PyramidMatchSvm
from featbench.errors import FeatureError, LearningError
from featbench.features.rows import PackedMaps


def space_of(vectors, components=2, levels=4, seed=0):
    return FeatureSpace.fit(vectors, components, levels, seed)


def match_by_hand(space, x, y):
    """New matches N_i = I_i - I_{i-1} at bins of side 2^i count 1/2^i (Grauman, Darrell 2005, equations 2 to 5)."""

    def cells(vectors, level):
        points = ((vectors - space.mean) @ space.axes.T - space.low) * space.scale
        points = np.clip(points, 0, 2**space.levels * (1 - 1e-12)) + space.shift
        return [tuple(cell) for cell in np.floor(points / 2**level).astype(int)]

    kernel, before = 0.0, 0
    for level in range(space.levels + 2):
        a, b = cells(x, level), cells(y, level)
        shared = sum(min(a.count(cell), b.count(cell)) for cell in set(a))
        kernel += (shared - before) / 2**level
        before = shared
    assert before == min(len(x), len(y))  # the last bin holds all
    return kernel


@pytest.mark.parametrize("components", [1, 2, 3])
def test_the_kernel_is_the_sum_of_new_matches(components):
    generator = np.random.default_rng(0)
    images = [generator.normal(size=(generator.integers(1, 30), 3)) for _ in range(8)]
    space = space_of(np.concatenate(images), components)
    histograms = [space.make_histogram(image) for image in images]
    gram = TrainingBins(histograms[:5]).match(histograms)
    for i, x in enumerate(images):
        for j, y in enumerate(images[:5]):
            own = np.sqrt(match_by_hand(space, x, x) * match_by_hand(space, y, y))
            assert gram[i, j] == pytest.approx(match_by_hand(space, x, y) / own, rel=1e-5)
    assert np.diag(gram[:5]) == pytest.approx(np.ones(5), rel=1e-5)


def test_the_order_of_vectors_does_not_matter():
    generator = np.random.default_rng(1)
    image = generator.normal(size=(20, 3))
    space = space_of(image)
    bins, weights = space.make_histogram(image)
    again, same = space.make_histogram(generator.permutation(image))
    assert np.array_equal(bins, again) and np.allclose(weights, same)


def clusters(images=40, seed=0):
    """Images whose vectors lie around one of two points, which tells their class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    grids = generator.integers(2, 5, size=(images, 2))
    vectors = [
        generator.normal(size=(rows * columns, 4)) + 3 * label
        for label, (rows, columns) in zip(labels, grids, strict=True)
    ]
    return PackedMaps.of(np.concatenate(vectors).astype(np.float32), grids), labels


def test_classes_that_lie_apart_are_told_apart_image_by_image_or_together():
    maps, labels = clusters()
    train, test = np.arange(20), np.arange(20, 40)
    predictor = PyramidMatchSvm(samples=500).fit(maps.select(train), labels[train], labels[train] > 1, 2, seed=0)
    (together,) = maps.select(test).blocks()
    alone = [predictor.predict(next(iter(maps.select(test[i : i + 1]).blocks())))[0] for i in range(20)]
    assert predictor.predict(together).tolist() == alone == labels[test].tolist()
    assert predictor.report["converged"]


def test_vectors_that_are_all_the_same_are_refused():
    maps = PackedMaps.of(np.ones((80, 4), dtype=np.float32), np.full((20, 2), 2))
    with pytest.raises(LearningError, match="all local vectors are the same"):
        PyramidMatchSvm().fit(maps, np.arange(20) % 2, np.zeros(20, dtype=bool), 2, seed=0)


def test_vectors_that_are_not_finite_are_refused():
    maps, labels = clusters()
    maps.array[maps.starts[3], 1] = np.nan
    with pytest.raises(FeatureError, match="image 3 are not finite"):
        PyramidMatchSvm().fit(maps, labels, labels > 1, 2, seed=0)


@pytest.mark.parametrize("wrong", [{"components": 0}, {"levels": -1}, {"C": 0.0}, {"multiclass": "all"}])
def test_parameters_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        PyramidMatchSvm(**wrong)
