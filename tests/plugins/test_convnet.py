import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.networks import noise
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import featbench
from featbench.errors import FeatbenchError
from featbench.evaluation.regimes import REGIMES
from featbench.features.extraction import extract
from featbench.learning.banks import fill_bank
from featbench.learning.networks import assemble, learn_stages
from featbench.plugins.convnet import ConvNet, MapDropout
from featbench.refinement.random_numbers import drawing_from
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.stages.connection_table import draw_connection_table, make_full_table
from featbench.stages.encoders import FilterBank, TanhGain
from featbench.stages.filters import Bank, Filters

CPU = torch.device("cpu")
BANK = Bank(filters=200, size=5, fan_in=4)
LENET = "6F5-PA2/2 > 16F5-PA2/2 > 120F4 > 84F1"


def build(learner, text, shape, seed=0):
    architecture = Architecture.parse(text)
    stages = learn_stages(architecture, learner, shape, None, seed=seed, device=CPU)
    return assemble(architecture, learner, shape, stages)


def kinds(learner, filters=3):
    encoder = learner.encoder(Filters(noise(filters, 1, 3, 3)), make_full_table(1))
    return [type(module) for module in encoder]


def test_it_is_supervised_so_that_only_r_plus_makes_sense():
    assert Registry().learner("convnet") is ConvNet
    refused = {name for name, regime in REGIMES.items() if regime.refusal("convnet", ConvNet.family)}
    assert refused == set(REGIMES) - {"R+"}
    assert not ConvNet.looks()


def test_weights_and_biases_for_tanh_are_uniform_within_one_over_the_root_of_the_inputs():
    filters = ConvNet().filters(BANK, None, 0)
    bound = 1 / math.sqrt(5 * 5 * 4)
    for values in (filters.weight, filters.bias):
        assert float(values.abs().max()) <= bound
        assert stats.kstest(values.flatten().double().numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 0.01
    assert torch.equal(filters.gain, torch.ones(200))


def test_weights_for_relu_are_normal_with_variance_two_over_the_inputs():
    filters = ConvNet(activation="relu").filters(BANK, None, 0)
    deviation = math.sqrt(2 / (5 * 5 * 4))
    assert stats.kstest(filters.weight.flatten().double().numpy(), stats.norm(0, deviation).cdf).pvalue > 0.01
    assert torch.equal(filters.bias, torch.zeros(200))


def test_relu_layers_keep_the_size_of_what_they_are_given():
    # What variance 2/inputs is for (He et al. 2015): the mean square stays, layer after layer.
    network = build(ConvNet(activation="relu"), " > ".join(["400F1"] * 6), (100, 1, 1))
    x = noise(50, 100, 1, 1)
    with torch.no_grad():
        ratio = float(network(x).square().mean() / x.square().mean())
    assert 0.6 < ratio < 1.6


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_seed_decides_whatever_else_was_drawn(activation):
    learner = ConvNet(activation=activation)
    first = learner.filters(BANK, None, 2**63 - 1)
    torch.rand(3)
    again, other = learner.filters(BANK, None, 2**63 - 1), learner.filters(BANK, None, 1)
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
    assert not torch.equal(first.weight, other.weight)


@pytest.mark.parametrize("bank", [Bank(1, 1, 1), Bank(84, 1, 120), Bank(7, 4, 3)])
def test_banks_of_any_size_keep_the_contract(bank):
    for activation in ("tanh", "relu"):
        assert fill_bank(ConvNet(activation=activation), bank, None, 0).find_problem(bank) is None


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [FilterBank, TanhGain]),
        ({"activation": "relu"}, [FilterBank, nn.ReLU]),
        ({"batch_norm": True}, [FilterBank, nn.BatchNorm2d, TanhGain]),
        ({"activation": "relu", "dropout": 0.5}, [FilterBank, nn.ReLU, MapDropout]),
        (
            {"activation": "relu", "batch_norm": True, "dropout": 0.1},
            [FilterBank, nn.BatchNorm2d, nn.ReLU, MapDropout],
        ),
    ],
)
def test_f_stands_for_what_is_asked_for(parameters, expected):
    assert kinds(ConvNet(**parameters)) == expected


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_plain_net_is_torch_s_own(activation):
    network = build(ConvNet(activation=activation), "6F5-PA2/2 > 9F4", (1, 12, 12)).double()
    weight, bias = ([p for n, p in network.named_parameters() if n.endswith(kind)] for kind in ("weight", "bias"))
    act = torch.tanh if activation == "tanh" else torch.relu
    x = noise(3, 1, 12, 12).double()
    expected = functional.avg_pool2d(act(functional.conv2d(x, weight[0], bias[0])), 2)
    expected = act(functional.conv2d(expected, weight[1], bias[1]))
    torch.testing.assert_close(network(x), expected)


def test_batch_normalisation_is_of_each_map_over_the_batch_and_lies_before_the_activation():
    learner, filters = ConvNet(activation="relu", batch_norm=True), Filters(noise(3, 1, 3, 3))
    encoder = learner.encoder(filters, make_full_table(1)).double()
    x = noise(8, 1, 6, 6, seed=1).double()
    y = functional.conv2d(x, encoder[0].weight, encoder[0].bias)
    mean, variance = y.mean(dim=(0, 2, 3), keepdim=True), y.var(dim=(0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(encoder(x), torch.relu((y - mean) / torch.sqrt(variance + 1e-5)))


def test_every_group_of_a_connection_table_has_its_own_maps():
    table = draw_connection_table(8, 24, 4, 0)
    assert len(table) > 1
    network = build(ConvNet(batch_norm=True), "8F3 > 24F3:4", (1, 8, 8))
    banks = [module for module in network.modules() if isinstance(module, FilterBank)]
    assert banks[1].weight.shape == (24, 4, 3, 3)
    assert float(banks[1].weight.detach().abs().max()) == pytest.approx(1 / 6, rel=0.01)
    assert network(noise(2, 1, 8, 8)).shape == (2, 24, 4, 4)


@pytest.mark.parametrize("learner", [ConvNet(), ConvNet("relu", True, 0.3)])
def test_labels_reach_every_parameter_but_a_bias_before_batch_normalisation(learner):
    network = build(learner, LENET, (1, 28, 28)).train()
    with drawing_from(0):
        functional.cross_entropy(network(noise(16, 1, 28, 28)).flatten(1), torch.arange(16)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().max() > 0), name


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_whole_maps_and_keeps_the_mean(rate):
    x = noise(100, 80, 3, 2)
    with drawing_from(5):
        y = MapDropout(rate).train()(x)
    dropped = (y == 0).all(dim=(2, 3))
    torch.testing.assert_close(y[~dropped], x[~dropped] / (1 - rate))
    assert float(dropped.double().mean()) == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 8000))


def test_dropout_of_rows_drops_units():
    with drawing_from(5):
        y = MapDropout(0.5).train()(torch.ones(200, 10))
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_dropout_is_the_identity_in_evaluation_and_draws_nothing():
    x, dropout = noise(4, 3, 2, 2), MapDropout(0.5).eval()
    with drawing_from(1):
        assert dropout(x) is x
        drawn = dropout.train()(x)
    with drawing_from(1):
        assert torch.equal(dropout(x), drawn)


def test_dropout_is_the_same_whichever_thread_does_the_work():
    network = build(ConvNet("relu", dropout=0.5), "8F3 > 8F3", (1, 8, 8)).train()
    x = noise(12, 1, 8, 8)

    def work(part):
        with drawing_from(part):
            return network(x[4 * part : 4 * part + 4])

    alone = [work(part) for part in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            for expected, found in zip(alone, pool.map(work, range(3)), strict=True):
                assert torch.equal(expected, found)


@pytest.mark.parametrize("learner", [ConvNet(), ConvNet("relu", True, 0.5)])
def test_features_are_those_of_the_network_in_evaluation(learner):
    network = build(learner, "6F5-PA2/2 > 10F4", (1, 12, 12))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=torch.Generator().manual_seed(0))
            module.running_var.fill_(2.0)
    x = noise(9, 1, 12, 12)
    found = extract(network, x, CPU)
    np.testing.assert_allclose(found, network.eval()(x).flatten(1).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"activation": "sigmoid"}, "activation must be one of tanh, relu, not 'sigmoid'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, not 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0"),
        ({"batch_norm": 1}, "convnet: parameter batch_norm takes a bool, not 1"),
        ({"drop_out": 0.1}, "did you mean 'dropout'"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(FeatbenchError, match=message):
        ConvNet.create(parameters)


@pytest.mark.parametrize("regime", ["R", "U", "U+", "fixed"])
def test_other_regimes_are_skipped_with_their_reason(regime):
    rows = featbench.compare("digits", features=["convnet"], regimes=[regime], draws=1, device="cpu", track=False)
    (row,) = rows[rows["learner"] == "convnet"].to_dict("records")
    assert (row["status"], row["message"]) == ("skipped", "convnet learns from labels alone: ask for R+")


def test_labels_alone_train_it():
    rows = featbench.compare(
        "digits",
        features=["convnet", "convnet(activation=relu,batch_norm=true,dropout=0.1)"],
        regimes=["R+"],
        stages="8F3-PM2 > 16F3",
        train_per_class=10,
        draws=1,
        device="cpu",
        track=False,
    )
    nets = rows[rows["learner"].str.startswith("convnet")]
    assert nets["status"].tolist() == ["ok", "ok"], nets["message"].tolist()
    assert all(scores[0] > 60 for scores in nets["scores"])


@pytest.mark.parametrize("learner", [ConvNet(), ConvNet("relu"), ConvNet("relu", True, 0.1)])
def test_plain_gradient_descent_trains_it(learner):
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images[:100]).float().view(-1, 1, 8, 8) / 5 - 1
    y = torch.from_numpy(labels[:100])
    network = build(learner, "8F3-PM2 > 32F3", (1, 8, 8)).append(build(ConvNet(), "10C1", (32, 1, 1)))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(150):
        with drawing_from(step):
            loss = functional.cross_entropy(network(x).flatten(1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float((network.eval()(x).flatten(1).argmax(dim=1) == y).float().mean()) > 0.98
