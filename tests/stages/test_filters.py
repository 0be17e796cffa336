import pytest
import torch

from featbench.stages.filters import Bank, Filters

BANK = Bank(filters=4, size=3, fan_in=2)


def weight(fill=1.0):
    return torch.full(BANK.shape, fill)


def test_bank_shape_is_filters_maps_and_side_twice():
    assert Bank(filters=64, size=9, fan_in=16).shape == (64, 16, 9, 9)


def test_gain_is_one_and_bias_zero_unless_given():
    filters = Filters(weight())
    assert torch.equal(filters.gain, torch.ones(4))
    assert torch.equal(filters.bias, torch.zeros(4))
    given = Filters(weight(), torch.full((4,), 2.0), torch.full((4,), 3.0))
    assert torch.equal(given.gain, torch.full((4,), 2.0))
    assert torch.equal(given.bias, torch.full((4,), 3.0))


def test_defaults_have_the_type_of_the_weight():
    assert Filters(weight().double()).gain.dtype == torch.float64


def test_tensors_and_back_keep_everything():
    filters = Filters(weight(), torch.arange(4.0), torch.arange(4.0) + 9, {"decoder": torch.rand(4, 2)})
    again = Filters.from_tensors(filters.tensors())
    assert filters.tensors().keys() == again.tensors().keys() == {"weight", "gain", "bias", "decoder"}
    for name, tensor in filters.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])


def test_concatenation_joins_every_tensor_in_order():
    groups = [
        Filters(weight(fill), torch.full((4,), fill), torch.full((4,), -fill), {"decoder": torch.full((4, 2), fill)})
        for fill in (1.0, 2.0, 3.0)
    ]
    joined = Filters.concatenate(groups)
    expected = torch.tensor([1.0, 2.0, 3.0]).repeat_interleave(4)
    assert joined.weight.shape == (12, 2, 3, 3)
    assert torch.equal(joined.weight[:, 0, 0, 0], expected)
    assert torch.equal(joined.gain, expected)
    assert torch.equal(joined.bias, -expected)
    assert torch.equal(joined.extras["decoder"][:, 1], expected)


def test_filters_as_asked_have_no_problem():
    assert Filters(weight(), extras={"decoder": torch.rand(4, 7)}).find_problem(BANK) is None


@pytest.mark.parametrize(
    ("filters", "parts"),
    [
        (Filters(torch.ones(4, 2, 3, 5)), ["weight", "[4, 2, 3, 5]", "[4, 2, 3, 3]"]),
        (Filters(torch.ones(4, 18)), ["weight", "[4, 18]", "[4, 2, 3, 3]"]),
        (Filters(weight(), gain=torch.ones(3)), ["gain", "[3]", "must be [4]"]),
        (Filters(weight(), gain=torch.ones(4, 2)), ["gain", "[4, 2]", "must be [4]"]),
        (Filters(weight(), bias=torch.ones(4, 1)), ["bias", "[4, 1]", "must be [4]"]),
        (Filters(weight(), extras={"scale": torch.tensor(2.0)}), ["scale", "single number", "[1]"]),
        (Filters(weight().to(torch.int64)), ["weight", "int64", "floating point"]),
        (Filters(weight(float("nan"))), ["weight", "not finite"]),
        (Filters(weight(), bias=torch.tensor([0.0, 1.0, float("inf"), 0.0])), ["bias", "not finite"]),
    ],
)
def test_problem_names_the_tensor_what_it_is_and_what_it_must_be(filters, parts):
    problem = filters.find_problem(BANK)
    assert problem is not None
    for part in parts:
        assert part in problem
