from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.features.rows import Extracted, PackedMaps, Rows

quick = settings(derandomize=True, deadline=None, database=None, max_examples=40)


def blocks_of(features, limit):
    """Return the blocks of features where at most so many values are read at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featbench.features.rows.BLOCK_VALUES", limit)
        return list(features.blocks())


def joined(blocks):
    blocks = list(blocks)
    return np.concatenate([block.vectors for block in blocks]), np.concatenate([block.grids for block in blocks])


@st.composite
def packed(draw):
    """Return local vectors of images of several sizes, with the vectors of each image by itself."""
    grids = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=8))
    maps = draw(st.integers(1, 4))
    array = np.arange(sum(h * w for h, w in grids) * maps, dtype=np.float32).reshape(-1, maps)
    ends = np.cumsum([0, *(h * w for h, w in grids)])
    alone = [array[start:end] for start, end in pairwise(ends)]
    return PackedMaps.of(array, np.array(grids)), alone, grids


def indices(count, **options):
    return st.lists(st.integers(0, count - 1), min_size=1, max_size=10, **options).map(lambda chosen: np.array(chosen))


# Rows of images of one size.


@quick
@given(st.data())
def test_rows_hold_the_maps_of_each_image_position_after_position(data):
    n, maps, height, width = (data.draw(st.integers(1, 4)) for _ in range(4))
    array = np.random.default_rng(n).normal(size=(n, maps, height, width)).astype(np.float32)
    chosen = data.draw(indices(n))
    local = Extracted(array).take(chosen).to_local_maps()
    vectors, grids = joined(blocks_of(local, data.draw(st.integers(1, 60))))
    expected = [array[i, :, r, c] for i in chosen for r in range(height) for c in range(width)]
    assert np.array_equal(vectors, np.stack(expected))
    assert grids.tolist() == local.grids.tolist() == [[height, width]] * len(chosen)
    assert len(local) == len(chosen)


@quick
@given(st.data())
def test_local_vectors_of_some_rows_are_those_of_the_rows_selected(data):
    array = np.arange(5 * 2 * 3 * 2, dtype=np.float32).reshape(5, 2, 3, 2)
    rows = Extracted(array).take(data.draw(indices(5)))
    chosen = data.draw(indices(len(rows)))
    assert len(rows.to_local_maps().select(chosen)) == len(rows.select(chosen).to_local_maps()) == len(chosen)
    found, grids = joined(rows.to_local_maps().select(chosen).blocks())
    expected, _ = joined(rows.select(chosen).to_local_maps().blocks())
    assert np.array_equal(found, expected)
    assert np.array_equal(found, np.concatenate([array[rows.indices[i]].reshape(2, -1).T for i in chosen]))
    assert grids.tolist() == [[3, 2]] * len(chosen)


@pytest.mark.parametrize(("shape", "maps"), [((4, 6), (6, 1, 1)), ((4, 2, 3), (2, 3, 1)), ((4, 2, 3, 5), (2, 3, 5))])
def test_features_of_one_size_are_taken_as_rows(shape, maps):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    rows = Extracted.of(array, []).take(np.array([2, 0]))
    assert isinstance(rows, Rows)
    assert rows.maps == maps
    assert np.array_equal(rows.read(), array.reshape(4, -1)[[2, 0]])


def test_a_row_of_numbers_is_one_local_vector():
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    (block,) = Extracted(array).take(np.array([1, 2])).to_local_maps().blocks()
    assert np.array_equal(block.vectors, array[1:])
    assert block.vectors.dtype == np.float16
    assert block.grids.tolist() == [[1, 1], [1, 1]]


# Local vectors of images of several sizes.


@quick
@given(packed(), st.data())
def test_blocks_of_images_are_the_images_in_order_however_much_is_read_at_once(made, data):
    features, alone, sizes = made
    chosen = data.draw(indices(len(alone)))
    some, limit = features.select(chosen), data.draw(st.integers(1, 80))
    blocks = blocks_of(some, limit)
    vectors, grids = joined(blocks)
    assert np.array_equal(vectors, np.concatenate([alone[i] for i in chosen]))
    assert [tuple(grid) for grid in grids] == [tuple(grid) for grid in some.grids] == [sizes[i] for i in chosen]
    assert len(some) == len(chosen)
    largest = max(one.size for one in alone)
    for block in blocks:
        assert len(block.grids) >= 1
        assert len(block.vectors) == block.grids.prod(axis=1).sum()
        assert block.vectors.size < limit + largest


@quick
@given(packed(), st.data())
def test_selecting_from_what_was_selected_is_selecting_once(made, data):
    features, alone, _ = made
    first = data.draw(indices(len(alone)))
    second = data.draw(indices(len(first)))
    twice, once = features.select(first).select(second), features.select(first[second])
    for one, other in zip(joined(twice.blocks()), joined(once.blocks()), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(twice.grids, once.grids)


@quick
@given(packed(), st.data())
def test_images_that_differ_in_size_are_taken_by_their_grids(made, data):
    features, alone, sizes = made
    chosen = data.draw(indices(len(alone), unique=True))
    taken = Extracted.of(features.array, sizes).take(chosen)
    assert isinstance(taken, PackedMaps)
    vectors, grids = joined(taken.blocks())
    assert np.array_equal(vectors, np.concatenate([alone[i] for i in chosen]))
    assert grids.tolist() == [list(sizes[i]) for i in chosen]


@quick
@given(st.data())
def test_images_of_one_size_give_the_same_vectors_packed_or_in_rows(data):
    n, maps, height, width = (data.draw(st.integers(1, 4)) for _ in range(4))
    array = np.random.default_rng(7).normal(size=(n, maps, height, width))
    chosen, limit = data.draw(indices(n)), data.draw(st.integers(1, 60))
    flat = np.concatenate([one.reshape(maps, -1).T for one in array])
    in_rows = joined(blocks_of(Extracted(array).take(chosen).to_local_maps(), limit))
    in_one = joined(blocks_of(Extracted.of(flat, [(height, width)] * n).take(chosen), limit))
    for one, other in zip(in_rows, in_one, strict=True):
        assert np.array_equal(one, other)


def test_vectors_on_disk_are_read_only_as_far_as_they_are_asked_for(tmp_path):
    array = np.arange(40, dtype=np.float16).reshape(20, 2)
    np.save(tmp_path / "vectors.npy", array)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    features = PackedMaps.of(mapped, np.array([[2, 3], [4, 1], [5, 2]])).select(np.array([2, 0]))
    assert isinstance(features.array, np.memmap)
    first, second = blocks_of(features, 12)
    assert np.array_equal(first.vectors, array[10:])
    assert np.array_equal(second.vectors, array[:6])
    assert first.vectors.dtype == np.float16
