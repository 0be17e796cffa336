import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from featbench.refinement.augmentation import Augmentation, derive_states, make_words

FULL = Augmentation(shift=2, rotate=15, scale=0.15, shear=0.2, elastic=34, flip=True)
AFFINE = replace(FULL, elastic=0, flip=False)

reproducible = settings(derandomize=True, deadline=None, database=None, max_examples=25)


def noise(n, maps=1, height=28, width=28, seed=0, dtype=torch.float32):
    return torch.randn(n, maps, height, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def ramps(n, height=41, width=41):
    """Maps that hold their own x and y: what comes out is where each pixel was read."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return torch.from_numpy(np.broadcast_to(np.stack([x, y]), (n, 2, height, width)).copy())


def affine_of(positions):
    """Fit forward matrices and shifts, about the centre, to the middle of ramps [n, 2, side, side]."""
    side = positions.shape[-1]
    middle, reach = (side - 1) / 2, side // 6
    inner = slice(side // 2 - reach, side // 2 + reach + 1)
    y, x = (axis[inner, inner].ravel() - middle for axis in np.mgrid[:side, :side])
    for image in positions.numpy():
        read = image[:, inner, inner].reshape(2, -1) - middle
        fit, residual, *_ = np.linalg.lstsq(np.column_stack([x, y, np.ones_like(x)]), read.T, rcond=None)
        assert residual.max() < 1e-18
        forward = np.linalg.inv(fit[:2].T)
        yield forward, -forward @ fit[2]


def decompose(matrix):
    """Return angle in degrees, scale across, scale down, shear of rotation · shear · scale."""
    angle = math.atan2(matrix[1, 0], matrix[0, 0])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    upper = turn.T @ matrix
    assert abs(upper[1, 0]) < 1e-9
    return math.degrees(angle), upper[0, 0], upper[1, 1], upper[0, 1] / upper[1, 1]


def written_mix(word):
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
    return word ^ (word >> 31)


def written_word(state, position):
    return written_mix((state + (position + 1) * 0x9E3779B97F4A7C15) % 2**64)


def written_field(alpha, sigma, height, width, image, seed):
    """The elastic displacements (x, y), in Python's integers and by scipy's Gaussian."""
    state, reach = written_word(written_word(seed, 0), image), int(3 * sigma + 0.5)
    rows, columns = height + 2 * reach, width + 2 * reach
    words = [written_word(state, 7 + position) for position in range(rows * columns)]
    halves = np.array([[word % 2**32, word >> 32] for word in words], dtype=np.float64)
    uniform = ((halves + 2**31) % 2**32 / 2**31 - 1).reshape(2, rows, columns)
    smoothed = np.stack([ndimage.gaussian_filter(part, sigma, truncate=3, mode="constant") for part in uniform])
    return alpha * smoothed[:, reach : reach + height, reach : reach + width]


def test_words_are_those_of_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert make_words(np.array([1234567], dtype=np.uint64), np.arange(4)).tolist() == published


@given(seed=st.integers(-(2**63), 2**63 - 1), image=st.integers(0, 2**40), position=st.integers(0, 2**40))
@reproducible
def test_words_of_an_image_are_those_written_in_python(seed, image, position):
    states = derive_states(seed, np.array([image]))
    assert int(states[0]) == written_word(written_word(seed % 2**64, 0), image)
    assert int(make_words(states, np.array([position]))[0]) == written_word(int(states[0]), position)


def test_words_are_uniform_and_independent_of_each_other():
    words = make_words(derive_states(5, np.arange(400))[:, None], np.arange(500))
    uniform = words.astype(np.float64) / 2**64
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 0.01
    assert len(np.unique(words)) == words.size
    bits = np.unpackbits(words.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / math.sqrt(words.size)
    signed, other = uniform - 0.5, make_words(derive_states(6, np.arange(400))[:, None], np.arange(500)) / 2**64 - 0.5
    bound = 5 / math.sqrt(words.size)
    for left, right in [
        (signed[:, 1:], signed[:, :-1]),
        (signed[1:], signed[:-1]),
        (signed[1:, 1:], signed[:-1, :-1]),
        (signed, other),
    ]:
        assert abs((left * right).mean() * 12) < bound


@pytest.mark.parametrize(
    "settings", [AFFINE, FULL, replace(FULL, elastic=60, smooth=2)], ids=["affine", "full", "fine"]
)
@pytest.mark.parametrize("height, width", [(28, 28), (23, 36), (5, 9)])
def test_maps_are_read_as_scipy_reads_them(settings, height, width):
    settings, images = replace(settings, flip=False), np.arange(4) + 11
    maps = noise(4, 3, height, width, dtype=torch.float64)
    both = torch.cat([maps, ramps(4, height, width)], dim=1)
    distorted = settings.distort(both, images, 3).numpy()
    for image, result in zip(maps.numpy(), distorted, strict=True):
        x, y = result[3:]
        for before, after in zip(image, result[:3], strict=True):
            expected = ndimage.map_coordinates(before, [y, x], order=1, mode="nearest")
            np.testing.assert_allclose(after, expected, atol=1e-10)


def test_an_affine_distortion_is_that_of_scipy():
    maps, images = noise(6, 1, 31, 31, dtype=torch.float64), np.arange(6)
    distorted = AFFINE.distort(maps, images, 8).numpy()
    for (forward, shift), before, after in zip(
        affine_of(AFFINE.distort(ramps(6), images, 8)), maps.numpy(), distorted, strict=True
    ):
        swap = np.eye(2)[::-1]
        inverse = swap @ np.linalg.inv(forward) @ swap
        offset = 15 - inverse @ (15 + shift[::-1])
        expected = ndimage.affine_transform(before[0], inverse, offset, order=1, mode="nearest")
        np.testing.assert_allclose(after[0], expected, atol=1e-9)


@pytest.mark.parametrize("alpha, sigma, height, width", [(34, 4, 28, 28), (3, 1.2, 11, 17), (0.7, 0.1, 6, 5)])
def test_an_elastic_distortion_is_the_written_one(alpha, sigma, height, width):
    maps = noise(2, 1, height, width)
    distorted = Augmentation(elastic=alpha, smooth=sigma).distort(maps, np.array([9, 4]), 77)
    y, x = np.mgrid[:height, :width]
    for image, before, after in zip((9, 4), maps.double().numpy(), distorted.numpy(), strict=True):
        field = written_field(alpha, sigma, height, width, image, 77)
        expected = ndimage.map_coordinates(before[0], [y + field[1], x + field[0]], order=1, mode="nearest")
        np.testing.assert_allclose(after[0], expected, atol=2e-5)


def test_displacements_have_the_promised_deviation_up_to_the_border():
    positions = Augmentation(elastic=10).distort(ramps(1500, 21, 21), np.arange(1500), 0) - ramps(1, 21, 21)
    promised = 10 / (4 * math.sqrt(12 * math.pi))
    for pixel in [(10, 10), (10, 6), (16, 10)]:
        assert positions[:, :, *pixel].std().item() == pytest.approx(promised, rel=0.05)
    # On the border the ramp itself is cut off outwards, but not along the border.
    assert positions[:, 0, 0, 10].std().item() == pytest.approx(promised, rel=0.05)
    assert positions[:, 1, 10, 0].std().item() == pytest.approx(promised, rel=0.05)
    assert abs(np.corrcoef(positions[:, 0, 10, 10], positions[:, 1, 10, 10])[0, 1]) < 0.1


def test_draws_are_uniform_within_their_bounds():
    found = [
        (*shift, *decompose(forward))
        for forward, shift in affine_of(AFFINE.distort(ramps(600), np.arange(600), seed=1))
    ]
    right, down, angle, across, tall, shear = np.array(found).T
    log = math.log(1.15)
    for values, bound in [
        (right, 2),
        (down, 2),
        (angle, 15),
        (np.log(across), log),
        (np.log(tall), log),
        (shear, 0.2),
    ]:
        assert np.abs(values).max() <= bound * (1 + 1e-9)
        assert stats.kstest(values / bound, "uniform", args=(-1, 2)).pvalue > 1e-3
    correlations = np.corrcoef([right, down, angle, across, tall, shear])
    assert np.abs(correlations - np.eye(6)).max() < 5 / math.sqrt(600)


@pytest.mark.parametrize("name, value", [("shift", 2), ("rotate", 15), ("scale", 0.15), ("shear", 0.2)])
def test_a_setting_draws_the_same_whatever_else_is_on(name, value):
    column = {"shift": [0, 1], "rotate": [2], "scale": [3, 4], "shear": [5]}[name]
    alone, together = (
        np.array(
            [(*shift, *decompose(forward)) for forward, shift in affine_of(kind.distort(ramps(5), np.arange(5), 2))]
        )
        for kind in (Augmentation(**{name: value}), AFFINE)
    )
    np.testing.assert_allclose(alone[:, column], together[:, column], atol=1e-9)
    rest = np.delete(alone - [0, 0, 0, 1, 1, 0], column, axis=1)
    np.testing.assert_allclose(rest, 0, atol=1e-9)


def test_half_of_the_images_are_flipped_and_nothing_else():
    maps = noise(1000, 2, 4, 5)
    flipped = Augmentation(flip=True).distort(maps, np.arange(1000), 3)
    kept, turned = ((flipped == other).flatten(1).all(dim=1) for other in (maps, maps.flip(-1)))
    assert bool((kept ^ turned).all())
    assert abs(int(turned.sum()) - 500) < 80


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("right, down", [(0, 0), (1, 0), (0, -2), (-3, 2), (40, -40)])
def test_a_shift_by_whole_pixels_repeats_the_border(monkeypatch, dtype, right, down):
    draws = np.zeros((7, 2))
    draws[:2] = [[right / 64], [down / 64]]
    monkeypatch.setattr("featbench.refinement.augmentation._to_signed", lambda words: draws)
    maps = noise(2, 2, 28, 27, dtype=dtype)
    padded = np.pad(maps.numpy(), [(0, 0), (0, 0), (50, 50), (50, 50)], mode="edge")
    expected = padded[:, :, 50 - down : 78 - down, 50 - right : 77 - right]
    shifted = Augmentation(shift=64).distort(maps, np.arange(2), 0)
    np.testing.assert_allclose(shifted.numpy(), expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-7)


@pytest.mark.parametrize("settings", [Augmentation(), Augmentation(smooth=2)])
def test_nothing_active_changes_nothing(settings):
    maps = noise(3)
    assert not settings.active
    assert settings.distort(maps, np.arange(3), 0) is maps


@pytest.mark.parametrize("name", ["shift", "rotate", "scale", "shear", "elastic", "flip"])
def test_each_setting_is_active_and_leaves_the_maps_it_was_given(name):
    settings, maps = Augmentation(**{name: True if name == "flip" else 0.5}), noise(8)
    before = maps.clone()
    assert settings.active
    assert not torch.equal(settings.distort(maps, np.arange(8), 0), before)
    assert torch.equal(maps, before)


@given(
    n=st.integers(1, 9),
    maps=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**63 - 1),
    smooth=st.sampled_from([0.3, 1, 4]),
    data=st.data(),
)
@reproducible
def test_an_image_is_distorted_alike_in_any_batch(n, maps, height, width, seed, smooth, data):
    images = np.array(data.draw(st.lists(st.integers(0, 60000), min_size=n, max_size=n)))
    settings, x = replace(FULL, smooth=smooth), noise(n, maps, height, width)
    together = settings.distort(x, images, seed)
    assert together.shape == x.shape and together.dtype == x.dtype
    assert float(together.max()) <= float(x.max()) + 1e-6 and float(together.min()) >= float(x.min()) - 1e-6
    order = np.array(data.draw(st.permutations(range(n))))
    assert torch.equal(settings.distort(x[order], images[order], seed), together[order])
    for one in range(n):
        assert torch.equal(settings.distort(x[one : one + 1], images[one : one + 1], seed)[0], together[one])


def test_threads_do_not_matter():
    threads, maps, images = torch.get_num_threads(), noise(5, 2, 143, 143), np.arange(5)
    try:
        torch.set_num_threads(1)
        alone = FULL.distort(maps, images, 4)
        torch.set_num_threads(3)
        assert torch.equal(FULL.distort(maps, images, 4), alone)
    finally:
        torch.set_num_threads(threads)


def test_epochs_and_images_differ_and_maps_of_an_image_do_not():
    maps, images = noise(1).expand(20, 2, 28, 28), np.arange(20)
    first, second = (FULL.distort(maps, images, seed) for seed in (1, 2))
    results = torch.cat([first, second])[:, 0].flatten(1)
    assert len(torch.unique(results, dim=0)) == 40
    assert torch.equal(first[:, 0], first[:, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_maps_keep_their_type(dtype):
    maps = noise(2, dtype=dtype)
    distorted = FULL.distort(maps, np.arange(2), 0)
    assert distorted.dtype == dtype
    torch.testing.assert_close(distorted, FULL.distort(maps.double(), np.arange(2), 0).to(dtype))


@pytest.mark.parametrize("shape", [(0, 1, 28, 28), (3, 0, 5, 5), (3, 1, 0, 5)])
def test_no_values_give_no_values(shape):
    assert FULL.distort(torch.zeros(shape), np.arange(shape[0]), 0).shape == shape


@pytest.mark.parametrize("shape, count", [((2, 28, 28), 2), ((2, 1, 28, 28), 3), ((2, 1, 28, 28), 1)])
def test_shapes_that_do_not_fit_are_refused(shape, count):
    with pytest.raises(ValueError, match=r"n images are needed, not \[2, .*\(\d,\)"):
        FULL.distort(torch.zeros(shape), np.arange(count), 0)


@pytest.mark.parametrize(
    "name, value",
    [(name, value) for name in ("shift", "rotate", "scale", "shear", "elastic", "smooth") for value in (-1, math.nan)]
    + [("shift", math.inf), ("elastic", math.inf), ("rotate", 181), ("scale", 15), ("shear", 1.5), ("smooth", 100)],
)
def test_absurd_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must lie between 0 and [0-9]+, not {value}"):
        Augmentation(**{name: value})


def test_a_gaussian_of_no_width_is_refused():
    with pytest.raises(ValueError, match="smooth must be positive"):
        Augmentation(smooth=0)
