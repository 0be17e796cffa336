import numpy as np
import pytest

from featbench.data.maps import Maps, Preprocessing
from featbench.data.prepare import PackedImages
from featbench.errors import SplitError
from featbench.evaluation.split import Census
from featbench.protocols.caltech101 import ARCHITECTURES, CALTECH101_30
from featbench.registry import Registry
from featbench.stages.architecture import Architecture

COLUMNS = ("Rabs-N-PA", "Rabs-PA", "N-PM", "N-PA", "PA")

INPUT = (1, 143, 143)


def test_the_protocol_is_registered_with_its_data_set():
    registry = Registry()
    assert registry.protocol("caltech101-30") is CALTECH101_30
    assert registry.dataset(CALTECH101_30.dataset).name == "caltech101"


def test_there_are_ten_architectures_five_of_one_stage_and_five_of_two_and_what_pmk_svms_are_given():
    columns = [f"{stages}:{column}" for stages in ("one", "two") for column in COLUMNS]
    assert list(ARCHITECTURES) == [*columns, "one:PMK", "two:PMK"]
    assert CALTECH101_30.architectures == ARCHITECTURES
    assert CALTECH101_30.architecture == ARCHITECTURES["one:Rabs-N-PA"]
    assert len({ARCHITECTURES[name] for name in columns}) == 10


def test_a_pmk_svm_is_given_the_maps_of_the_full_stages_those_of_the_second_before_pooling():
    assert ARCHITECTURES["one:PMK"] == ARCHITECTURES["one:Rabs-N-PA"]
    assert ARCHITECTURES["two:PMK"] == ARCHITECTURES["two:Rabs-N-PA"].removesuffix("-PA6/4")


@pytest.mark.parametrize("column", COLUMNS)
def test_stages_are_made_of_the_operations_of_their_column(column):
    one, two = (Architecture.parse(ARCHITECTURES[f"{stages}:{column}"]).stages for stages in ("one", "two"))
    assert len(one) == 1
    assert len(two) == 2
    assert two[0] == one[0]
    for stage in two:
        tokens = [str(operation) for operation in stage.operations]
        assert "-".join(token.rstrip("0123456789/") for token in tokens[1:]) == column
    assert [str(stage.operations[0]) for stage in two] == ["64F9", "256F9:16"]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("one:Rabs-N-PA", [(64, 26, 26)]),
        ("one:Rabs-PA", [(64, 26, 26)]),
        ("one:N-PM", [(64, 27, 27)]),
        ("one:N-PA", [(64, 26, 26)]),
        ("one:PA", [(64, 26, 26)]),
        ("two:Rabs-N-PA", [(64, 26, 26), (256, 4, 4)]),
        ("two:Rabs-PA", [(64, 26, 26), (256, 4, 4)]),
        ("two:N-PM", [(64, 27, 27), (256, 4, 4)]),
        ("two:N-PA", [(64, 26, 26), (256, 4, 4)]),
        ("two:PA", [(64, 26, 26), (256, 4, 4)]),
        ("one:PMK", [(64, 26, 26)]),
        ("two:PMK", [(64, 26, 26), (256, 18, 18)]),
    ],
)
def test_shapes_are_those_of_the_paper(name, shapes):
    assert list(Architecture.parse(ARCHITECTURES[name]).shapes(INPUT)) == shapes


@pytest.mark.parametrize("sides", [(151, 100), (90, 151), (151, 151)])
def test_images_of_151_pixels_enter_as_143(sides):
    pixels = PackedImages.pack([np.zeros(sides, dtype=np.uint8)])
    assert Maps(pixels, CALTECH101_30.preprocessing).shape == INPUT
    assert CALTECH101_30.preprocessing == Preprocessing(151, True, 1.0, True)


def test_thirty_images_of_each_class_train_five_of_them_for_validation():
    protocol = CALTECH101_30
    assert (protocol.train_per_class, protocol.test, protocol.test_per_class) == (30, "rest", None)
    assert 30 * protocol.validation_fraction == pytest.approx(5)
    assert protocol.metric == "mean-per-class-accuracy"
    Census(("a", "b"), (31, 800), (0, 0), False).require(protocol.train_per_class, protocol.test)
    with pytest.raises(SplitError, match="class 'a' has 30 images, but 30 are asked for training"):
        Census(("a", "b"), (30, 800), (0, 0), False).require(protocol.train_per_class, protocol.test)
