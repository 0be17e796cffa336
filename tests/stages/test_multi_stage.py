"""Features of several stages: kept, joined, learned with, compared."""

import numpy as np
import pytest
import torch
from helpers.networks import noise, random_network
from torch import nn

from featbench.comparison import compare
from featbench.evaluation.split import Census, Survey
from featbench.experiment.grid import enumerate_cells
from featbench.experiment.request import Request
from featbench.extractor import Extractor
from featbench.features.extraction import extract
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.stages.stage import MultiStage, Stage

CPU = torch.device("cpu")
THREE = "6F3-Rabs-N3-PA2/2 {} N3-8F2:3-Rabs {} 5C2-tanh-PM2"
DIGITS = "16F3-Rabs-N3-PA2/2 >+ 16F2:4-Rabs-PA1/1"


def by_hand(network, kept, x):
    """Return the maps of the kept stages and of the last, image by image, value by value."""
    rows = []
    for image in x:
        maps, row = image[None], []
        for number, stage in enumerate(network, start=1):
            maps = stage(maps)
            if number in kept or number == len(network):
                row += [value for plane in maps[0].tolist() for line in plane for value in line]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("joints, kept", [((">+", ">"), {1}), ((">", ">+"), {2}), ((">+", ">+"), {1, 2})])
def test_features_are_the_maps_of_the_kept_stages_and_the_last_one_after_another(joints, kept):
    text, x = THREE.format(*joints), noise(3, 2, 13, 11)
    network = random_network(text, (2, 13, 11))
    assert type(network) is MultiStage
    exact = network.double()
    with torch.no_grad():
        truth = by_hand(exact, kept, x.double())
        assert exact(x.double()).numpy() == pytest.approx(truth, rel=1e-12, abs=1e-12)
    after = Architecture.parse(text).shapes((2, 13, 11))
    assert truth.shape[1] == sum(np.prod(after[number - 1]) for number in {*kept, 3})
    # As it is extracted: fused, in blocks, in float32.
    assert extract(network.float(), x, CPU) == pytest.approx(truth, rel=1e-4, abs=1e-5)


def test_the_numbers_of_the_paper_sized_example():
    shapes = Architecture.parse("64F9-Rabs-N-PA10/5 >+ 256F9:16-Rabs-N-PA6/4").shapes((1, 143, 143))
    assert [int(np.prod(shape)) for shape in shapes] == [43_264, 4_096]


def test_where_the_last_stage_alone_is_kept_nothing_is_different():
    x = noise(2, 2, 13, 11)
    plain, joined = (random_network(THREE.format(*joints), (2, 13, 11)) for joints in ((">", ">"), (">+", ">+")))
    assert type(plain) is nn.Sequential
    assert [type(stage) for stage in plain] == [type(stage) for stage in joined] == [Stage] * 3
    assert list(plain.state_dict()) == list(joined.state_dict())
    joined.load_state_dict(plain.state_dict())
    with torch.no_grad():
        last = plain(x)
        assert last.shape == (2, 5, 1, 1)
        assert torch.equal(joined(x)[:, -5:], last.flatten(1))


def test_gradients_of_kept_features_go_to_the_stages_that_made_them():
    network, x = random_network("4F3-Rabs-N3-PA2/2 >+ 6F2:2-Rabs", (1, 10, 10)), noise(2, 1, 10, 10)
    first, second = list(network[0].parameters()), list(network[1].parameters())
    split = 4 * 4 * 4

    def gradients(features):
        return torch.autograd.grad(features.square().sum(), [*first, *second], allow_unused=True)

    of_first = gradients(network(x)[:, :split])
    assert [gradient is not None and bool(gradient.any()) for gradient in of_first[: len(first)]] == [True] * len(first)
    assert all(gradient is None or not gradient.any() for gradient in of_first[len(first) :])
    both = zip(of_first, gradients(network(x)[:, split:]), gradients(network(x)), strict=True)
    for low, high, whole in both:
        assert bool(high.any())
        torch.testing.assert_close(whole, high if low is None else low + high, rtol=1e-4, atol=1e-6)


def test_gradients_agree_with_finite_differences():
    network = random_network("2F2-Rabs-N3 >+ N3-2F2-PA2/2", (1, 6, 6)).double()
    assert torch.autograd.gradcheck(network, noise(2, 1, 6, 6).double().requires_grad_(), eps=1e-6, atol=1e-6)


def test_labels_refine_every_stage():
    labels = np.arange(48) % 2
    images = noise(48, 8, 8) + 0.5 * torch.from_numpy(labels).float().view(-1, 1, 1) * noise(1, 8, 8, seed=1)
    plain, refined = (
        Extractor("4F3-Rabs-PA2/2 >+ 4F2-Rabs", device="cpu", refined=asked, refinement={"rate": 0.01})
        .fit(images.numpy(), labels)
        .network_.state_dict()
        for asked in (False, True)
    )
    changed = [name for name, value in plain.items() if not torch.equal(value, refined[name])]
    assert {name.split(".")[0] for name in changed} == {"0", "1"}


def test_a_comparison_on_the_digits_gives_a_row(home):
    rows = compare("digits", features=["random"], regimes=["R"], stages=DIGITS, draws=1, device="cpu", track=False)
    row = rows[rows["learner"] == "random"].iloc[0]
    assert (row["status"], row["label"], row["architecture"]) == ("ok", "RR", DIGITS)
    assert row["mean"] > 60
    found = [np.load(path, mmap_mode="r") for path in (home / "artifacts" / "features").glob("*.npy")]
    assert 16 * 3 * 3 + 16 * 2 * 2 in {features.shape[1] for features in found if features.ndim == 2}


def skips(features, classifiers, stages=DIGITS, *, one_size=True, regimes=None):
    survey = Survey((1, 8, 8), one_size, Census(tuple("0123456789"), (178,) * 10, (0,) * 10, has_test=False))
    request = Request(features=features, regimes=regimes, classifiers=classifiers, stages=stages, draws=1, device="cpu")
    cells = enumerate_cells(request, Registry(), lambda _dataset, _preprocessing: survey)
    return {(cell.learner.name, cell.regime.name, cell.classifier): cell.skip for cell in cells}


def test_classifiers_of_local_vectors_refuse_joined_features_before_anything_is_computed():
    found = skips(["random", "sift(size=4)"], ["pmk-svm", "linear-svm"], regimes=["R", "R+", "fixed"])
    for regime in ("R", "R+"):
        reason = found["random", regime, "pmk-svm"]
        assert reason.startswith("features of several stages have no common grid of local vectors, which pmk-svm takes")
        assert "> for >+" in reason
        assert found["random", regime, "linear-svm"] == ""
    # An extractor that takes no architecture gives what it always gives.
    assert found["sift", "fixed", "pmk-svm"] == ""
    assert skips(["random"], ["pmk-svm"], DIGITS.replace(">+", ">"))["random", "R", "pmk-svm"] == ""


def test_images_of_several_sizes_have_no_rows_of_joined_features():
    found = skips(["random"], ["pmk-svm", "linear-svm"], one_size=False)
    expected = "the images differ in size, and so do their rows of features of several stages: a protocol that resizes"
    assert found["random", "R", "linear-svm"].startswith(expected)
    assert "no common grid" in found["random", "R", "pmk-svm"]
    plain = skips(["random"], ["pmk-svm"], DIGITS.replace(">+", ">"), one_size=False)
    assert plain["random", "R", "pmk-svm"] == ""


def test_a_refused_pair_keeps_its_row_with_the_reason():
    rows = compare(
        "digits",
        features=["random"],
        regimes=["R"],
        classifiers=["pmk-svm"],
        stages=DIGITS,
        draws=1,
        device="cpu",
        track=False,
    )
    row = rows[rows["learner"] == "random"].iloc[0]
    assert row["status"] == "skipped"
    assert "no common grid of local vectors" in row["message"]


def test_the_extractor_gives_joined_features():
    images = noise(5, 9, 9).numpy()
    features = Extractor("4F3-Rabs-PA2/2 >+ 6F2", device="cpu").fit_transform(images)
    assert features.shape == (5, 4 * 9 + 6 * 4)
