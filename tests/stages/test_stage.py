import math

import numpy as np
import pytest
import torch
from scipy import signal
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from featbench.stages.architecture import Architecture
from featbench.stages.connection_table import draw_connection_table, make_full_table
from featbench.stages.encoders import FilterBank, Shrinkage, TanhGain, build_tanh_encoder
from featbench.stages.filters import Filters
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.specs import FilterBankSpec, PointwiseSpec
from featbench.stages.stage import Rectification, Stage, WinnerTakesAll, build_operations

PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]
TABLES = {
    "full": make_full_table(4),
    "one group, other order": np.array([[2, 0, 3, 1]]),
    "one group, fewer maps": np.array([[1, 3]]),
    "three groups": np.array([[0, 2], [1, 3], [3, 0]]),
    "a group for each filter": np.array([[0], [3], [1], [1], [2], [0]]),
}


def sample(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def some_filters(count, fan_in, size, dtype=torch.float64):
    return Filters(
        sample(count, fan_in, size, size, seed=1, dtype=dtype),
        sample(count, seed=2, dtype=dtype),
        sample(count, seed=3, dtype=dtype),
    )


def written_bank(x, filters, table):
    weight, bias = filters.weight.double().numpy(), filters.bias.double().numpy()
    count, fan_in, size, _ = weight.shape
    n, _, height, width = x.shape
    out = np.zeros((n, count, height - size + 1, width - size + 1))
    for image in range(n):
        for j in range(count):
            seen = table[j // (count // len(table))]
            for r in range(out.shape[2]):
                for c in range(out.shape[3]):
                    total = bias[j]
                    for i in range(fan_in):
                        total += (weight[j, i] * x[image, seen[i], r : r + size, c : c + size]).sum()
                    out[image, j, r, c] = total
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("size", [1, 3])
def test_filter_bank_equals_the_written_loops(size, table, dtype, tolerance):
    x = sample(2, 4, 7, 6, dtype=dtype)
    filters = some_filters(6, table.shape[1], size, dtype)
    result = FilterBank(filters, table)(x)
    assert result.dtype == dtype
    np.testing.assert_allclose(
        result.detach(), written_bank(x.double().numpy(), filters, table), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_encoder_is_gain_times_tanh_of_the_correlation(table, dtype, tolerance):
    x = sample(2, 4, 7, 6, dtype=dtype)
    filters = some_filters(6, table.shape[1], 3, dtype)
    expected = written_bank(x.double().numpy(), filters, table)
    for j, gain in enumerate(filters.gain.double().tolist()):
        expected[:, j] = [[[gain * math.tanh(v) for v in row] for row in image] for image in expected[:, j]]
    result = build_tanh_encoder(filters, table)(x).detach()
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def test_filter_bank_with_a_random_table_equals_scipys_correlation():
    table = draw_connection_table(12, 32, 5, seed=0)
    filters = some_filters(32, 5, 4)
    x = sample(1, 12, 9, 11)
    result = FilterBank(filters, table)(x).detach().numpy()[0]
    for j in range(32):
        maps = x.numpy()[0, table[j // (32 // len(table))]]
        expected = filters.bias[j].item() + signal.correlate(maps, filters.weight[j].numpy(), mode="valid")[0]
        np.testing.assert_allclose(result[j], expected, atol=1e-10)


def test_filters_do_not_see_maps_outside_their_group():
    table = TABLES["three groups"]
    bank = FilterBank(some_filters(6, 2, 3), table)
    x = sample(1, 4, 5, 5)
    other = x.clone()
    other[:, 1] += 1
    changed = (bank(x) != bank(other)).flatten(2).any(dim=2)[0].tolist()
    assert changed == [False, False, True, True, False, False]


def written_pointwise(kind, column):
    if kind == "Rabs":
        return [abs(value) for value in column]
    if kind == "tanh":
        return [math.tanh(value) for value in column]
    if kind == "relu":
        return [value if value > 0 else 0.0 for value in column]
    if kind == "shrink":
        return [math.copysign(max(abs(value) - 0.5, 0.0), value) for value in column]
    winner = max(range(len(column)), key=lambda k: (abs(column[k]), -k))
    return [value if k == winner else 0.0 for k, value in enumerate(column)]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 1)])
@pytest.mark.parametrize("kind", ["Rabs", "tanh", "relu", "shrink", "wta"])
def test_pointwise_operations_equal_the_written_loops(kind, shape, dtype, tolerance):
    x = sample(*shape, dtype=dtype)
    result = build_operations([PointwiseSpec(kind)], shape[1]).to(dtype)(x).detach().numpy()
    assert result.shape == shape
    for image in range(shape[0]):
        for r in range(shape[2]):
            for c in range(shape[3]):
                expected = written_pointwise(kind, x[image, :, r, c].tolist())
                np.testing.assert_allclose(result[image, :, r, c], expected, rtol=tolerance, atol=tolerance)


def test_first_of_equal_magnitudes_wins():
    x = torch.tensor([-2.0, 2.0, 1.0, -2.0]).view(1, 4, 1, 1)
    assert WinnerTakesAll()(x).flatten().tolist() == [-2, 0, 0, 0]


def test_every_map_has_its_own_threshold():
    shrink = Shrinkage(torch.full((3,), 0.5))
    with torch.no_grad():
        shrink.threshold.copy_(torch.tensor([0.0, 1.0, 5.0]))
    x = torch.tensor([2.0, -2.0, 2.0]).view(1, 3, 1, 1)
    assert shrink(x).flatten().tolist() == [2, -1, 0]


def away_from_kinks(*shape):
    x = sample(*shape, seed=5)
    return (x + 0.2 * x.sign()).where((x.abs() - 0.3).abs() > 0.05, 2 * x).requires_grad_()


@pytest.mark.parametrize("kind", ["Rabs", "tanh", "relu", "shrink", "wta"])
def test_gradient_of_pointwise_operations(kind):
    x = away_from_kinks(2, 3, 3, 4)
    assert gradcheck(build_operations([PointwiseSpec(kind)], 3).double(), x)


def test_gradient_of_rectification_at_zero_is_zero():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    Rectification()(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_gradient_of_shrinkage_by_its_thresholds():
    shrink = Shrinkage(torch.full((3,), 0.5)).double()
    x = away_from_kinks(2, 3, 3, 4)
    threshold = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, t: functional_call(shrink, {"threshold": t}, (x,)), (x, threshold))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_gradient_of_the_filter_bank_by_input_weight_and_bias(table):
    filters = some_filters(6, table.shape[1], 2)
    bank = FilterBank(filters, table)
    inputs = [tensor.requires_grad_() for tensor in (sample(1, 4, 4, 3), filters.weight, filters.bias)]
    assert gradcheck(lambda x, w, b: functional_call(bank, {"weight": w, "bias": b}, (x,)), inputs)


def test_gradient_of_the_tanh_by_input_and_gain():
    gain = sample(3, seed=2).requires_grad_()
    module = TanhGain(gain.detach())
    x = sample(2, 3, 3, 2).requires_grad_()
    assert gradcheck(lambda x, g: functional_call(module, {"gain": g}, (x,)), (x, gain))


def test_gradient_through_a_whole_stage():
    spec = Architecture.parse("N3-4F3:2-Rabs-N5-PA3/2").stages[0]
    stage = Stage(spec, 3, some_filters(4, 2, 3), np.array([[0, 2], [1, 2]]))
    parameters = {name: tensor.detach().requires_grad_() for name, tensor in stage.named_parameters()}
    x = sample(1, 3, 9, 8).requires_grad_()

    def run(x, *values):
        return functional_call(stage, dict(zip(parameters, values, strict=True)), (x,))

    assert gradcheck(run, (x, *parameters.values()))


def test_operations_apply_from_left_to_right():
    spec = Architecture.parse("N-4C3-relu-PM2").stages[0]
    filters = some_filters(4, 2, 3)
    x = sample(1, 2, 10, 12)
    expected = build_operations([spec.operations[0]], 2)(x)
    expected = torch.from_numpy(written_bank(expected.numpy(), filters, make_full_table(2)))
    expected = nn.functional.max_pool2d(expected.clamp_min(0), 2)
    np.testing.assert_allclose(Stage(spec, 2, filters)(x).detach(), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("N", LocalNormalisation()),
        ("N5", LocalNormalisation(5)),
        ("Nsub", LocalNormalisation(divisive=False)),
        ("Nsub3", LocalNormalisation(3, divisive=False)),
        ("Ndiv", LocalNormalisation(subtractive=False)),
        ("Nz", LocalNormalisation(zeros=True)),
        ("Nz5", LocalNormalisation(5, zeros=True)),
        ("Nsubz", LocalNormalisation(divisive=False, zeros=True)),
        ("Ndivz3", LocalNormalisation(3, subtractive=False, zeros=True)),
        ("PM3/2", nn.MaxPool2d(3, 2)),
        ("PA3", nn.AvgPool2d(3)),
    ],
)
def test_tokens_stand_for_their_operations(token, expected):
    x = sample(2, 3, 12, 10) + 1
    specs = Architecture.parse(f"{token}-1C1").stages[0].around_bank()[0]
    assert torch.equal(build_operations(specs, 3)(x), expected(x))


def test_order_matters():
    x = sample(1, 1, 10, 12)
    filters = some_filters(4, 1, 3)
    outputs = [
        Stage(Architecture.parse(text).stages[0], 1, filters)(x) for text in ("4F3-Rabs-PA2/2", "4F3-PA2/2-Rabs")
    ]
    assert not torch.allclose(*outputs)


def test_bare_bank_has_neither_tanh_nor_gain():
    filters = some_filters(4, 2, 3)
    x = sample(1, 2, 6, 6)
    stage = Stage(Architecture.parse("4C3").stages[0], 2, filters)
    np.testing.assert_allclose(stage(x).detach(), written_bank(x.numpy(), filters, make_full_table(2)), atol=1e-10)


def test_encoder_of_the_learner_stands_for_the_letter():
    asked = []

    def encoder(filters, table):
        asked.append((filters.weight.shape, table.tolist()))
        return nn.Sequential(FilterBank(filters, table), nn.Sigmoid())

    filters = some_filters(4, 2, 3)
    stage = Stage(Architecture.parse("4F3").stages[0], 3, filters, np.array([[0, 2], [1, 2]]), encoder)
    x = sample(1, 3, 6, 6)
    expected = 1 / (1 + np.exp(-written_bank(x.numpy(), filters, np.array([[0, 2], [1, 2]]))))
    np.testing.assert_allclose(stage(x).detach(), expected, atol=1e-10)
    assert asked == [((4, 2, 3, 3), [[0, 2], [1, 2]])]


def test_operations_after_pooling_over_maps_know_how_many_maps_are_left():
    stage = Stage(Architecture.parse("6C3-PFA2/2-shrink").stages[0], 1, some_filters(6, 1, 3))
    assert [tuple(p.shape) for name, p in stage.named_parameters() if name.endswith("threshold")] == [(3,)]
    assert stage(sample(1, 1, 5, 5)).shape == (1, 3, 3, 3)


def test_refinement_finds_weight_bias_and_gain_but_not_the_table():
    stage = Stage(Architecture.parse("4F3:1").stages[0], 2, some_filters(4, 1, 3), np.array([[0], [1]]))
    assert {name.split(".")[-1] for name, _ in stage.named_parameters()} == {"weight", "bias", "gain"}
    assert [name.split(".")[-1] for name, _ in stage.named_buffers() if "table" in name] == ["table"]


def test_stage_keeps_copies_of_the_filters_and_the_table():
    filters, table = some_filters(4, 1, 3), np.array([[0], [1]])
    stage = Stage(Architecture.parse("4F3:1").stages[0], 2, filters, table)
    x = sample(1, 2, 5, 5)
    before = stage(x)
    filters.weight.zero_()
    filters.gain.zero_()
    table[:] = 0
    assert torch.equal(stage(x), before)


def test_operation_that_needs_filters_is_refused():
    with pytest.raises(TypeError, match="8F3 needs filters"):
        build_operations([FilterBankSpec(8, 3)], 1)


@pytest.mark.parametrize(
    "text", ["4F3-Rabs-N-PA2/2", "N-4C3-relu-PL2:2", "N-4F3-tanh-PM2", "4F3-shrink-Ndiv-PX4:2", "4C3-wta-Nsub"]
)
@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("content", ["blank", "constant", "random"])
def test_values_and_gradients_of_stages_are_finite(text, maps, content):
    x = torch.full((2, maps, 7, 5), {"blank": 0.0, "constant": 0.7, "random": 0.0}[content])
    if content == "random":
        x = sample(2, maps, 7, 5, dtype=torch.float32)
    stage = Stage(Architecture.parse(text).stages[0], maps, some_filters(4, maps, 3, torch.float32))
    x.requires_grad_()
    y = stage(x)
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    for parameter in stage.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_one_image_gives_the_same_alone_as_in_a_batch():
    stage = Stage(Architecture.parse("4F3-Rabs-N-PA2/2").stages[0], 2, some_filters(4, 2, 3))
    x = sample(5, 2, 9, 9)
    together = stage(x)
    for index in range(5):
        np.testing.assert_allclose(stage(x[index : index + 1])[0].detach(), together[index].detach(), atol=1e-12)
