import numpy as np
from sklearn.datasets import load_digits

from featbench.data.dataset import check_images
from featbench.datasets.digits import Digits
from featbench.registry import Registry


def test_images_and_labels_are_those_of_scikit_learn():
    images, expected = Digits().load(None), load_digits()
    assert images.pixels.dtype == np.uint8
    assert np.array_equal(images.pixels, expected.images)
    assert np.array_equal(images.labels, expected.target)


def test_counts_are_those_of_the_published_test_part():
    images = Digits().load(None)
    assert images.pixels.shape == (1797, 8, 8)
    assert (images.pixels.min(), images.pixels.max()) == (0, 16)
    assert images.classes == tuple("0123456789")
    assert np.bincount(images.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.test is None


def test_images_keep_the_contract_of_data_sets():
    images = Digits().load(None)
    assert check_images("digits", images) is images


def test_fingerprint_is_a_hash_that_needs_no_folder():
    fingerprint = Digits().fingerprint(None)
    assert fingerprint == Digits().fingerprint(None)
    assert len(fingerprint) == 64
    int(fingerprint, 16)


def test_it_is_registered_as_digits():
    assert isinstance(Registry().dataset("digits"), Digits)
