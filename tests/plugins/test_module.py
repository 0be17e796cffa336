import pickle
import re
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest
import torch
from helpers.networks import noise
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

import featbench
from featbench.errors import PluginError, UsageError
from featbench.extractor import Extractor
from featbench.features.extraction import extract
from featbench.learning.networks import learn_network
from featbench.plugins.module import Module, RepeatedMap
from featbench.registry import Registry

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)

BACKBONE = """
    from __future__ import annotations
    import torch
    from torch import nn
    from torch.nn import functional

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x):
            return functional.max_pool2d(self.conv(x).relu(), 2)
"""


@pytest.fixture
def write(tmp_path):
    """Write a Python file and return its path as text."""

    def write(source=BACKBONE, name="backbone.py"):
        path = tmp_path / name
        path.write_text(dedent(source))
        return str(path)

    return write


@pytest.fixture
def given(write):
    """The learner of a module whose forward, or whose whole class, is given as source."""

    def given(forward="return self.conv(x)", before="self.conv = nn.Conv2d(1, 4, 3)", **parameters):
        lines = [
            "import torch",
            "from torch import nn",
            "class Net(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            *(f"        {line}" for line in before.splitlines()),
            "    def forward(self, x):",
            *(f"        {line}" for line in forward.splitlines()),
        ]
        return Module(write("\n".join(lines), "net.py"), "Net", **parameters)

    return given


def build(learner, shape=SHAPE, seed=0):
    return learn_network(learner, shape, None, seed=seed, device=CPU)


def test_it_is_fixed_and_may_be_refined():
    learner = Registry().learner("module")
    assert learner is Module
    assert (learner.family, learner.differentiable, learner.looks()) == ("fixed", True, False)


def test_features_are_those_of_the_module(write):
    network = build(Module(write(), "Backbone"))
    x = noise(5, *SHAPE)
    expected = functional.max_pool2d(functional.conv2d(x, network.conv.weight, network.conv.bias).relu(), 2)
    assert expected.shape == (5, 4, 3, 3)
    np.testing.assert_allclose(extract(network, x, CPU), expected.flatten(1).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_constructor_draws_under_the_learner_s_seed(write):
    learner = Module(write(), "Backbone")
    first, again, other = (build(learner, seed=seed).conv.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("ask", [lambda learner: learner.refusal(SHAPE), lambda learner: build(learner)])
def test_global_generators_are_left_alone(ask, given):
    learner = given("return self.conv(x)")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ask(learner)
    assert torch.equal(torch.rand(3), expected)


def test_a_function_may_give_the_module_and_rows_are_features_too(write):
    file = write(
        """
        from torch import nn
        def make():
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
        """
    )
    learner = Module(file, "make")
    assert learner.refusal(SHAPE) is None
    assert build(learner)(noise(2, *SHAPE)).shape == (2, 7)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_come_from_their_file(suffix, write, tmp_path):
    path = tmp_path / f"weights{suffix}"
    state = {"conv.weight": noise(4, 1, 3, 3), "conv.bias": noise(4, seed=1)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = build(Module(write(), "Backbone", str(path))).state_dict()
    assert {name: tensor.tolist() for name, tensor in found.items()} == {n: t.tolist() for n, t in state.items()}


def test_a_network_for_rgb_is_given_the_grey_map_three_times(given, tmp_path):
    state = {"conv.weight": noise(2, 3, 3, 3), "conv.bias": noise(2, seed=1)}
    save_file(state, tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    learner = given(before="self.conv = nn.Conv2d(3, 2, 3)", weights=weights, channels=3)
    network, x = build(learner), noise(4, *SHAPE)
    assert isinstance(network, RepeatedMap)
    # Three copies of a map under three filters are the map under their sum.
    expected = functional.conv2d(x, state["conv.weight"].sum(dim=1, keepdim=True), state["conv.bias"])
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_built_again_from_its_state(channels, given):
    learner = given(before=f"self.conv = nn.Conv2d({channels}, 4, 3)\nself.norm = nn.BatchNorm2d(4)", channels=channels)
    network, x = build(learner, seed=9), noise(3, *SHAPE)
    again = learner.rebuild(SHAPE, network.state_dict())
    assert torch.equal(again.eval()(x), network.eval()(x))


def test_the_files_that_decide_what_it_gives_are_named(write, tmp_path):
    file, weights = write(), tmp_path / "w.pt"
    assert [str(path) for path in Module(file, "Backbone", str(weights)).files()] == [file]
    torch.save({}, weights)
    assert [str(path) for path in Module(file, "Backbone", str(weights)).files()] == [file, str(weights)]
    assert [str(path) for path in Module(file, "Backbone").files()] == [file]
    assert Module().files() == ()
    assert Registry().learner("random")().files() == ()


def test_a_file_is_imported_once_for_each_content(write, tmp_path):
    counting = f"\nwith open({str(tmp_path / 'imports')!r}, 'a') as file:\n    file.write('.')\n"
    source = dedent(BACKBONE) + counting
    learner = Module(write(source), "Backbone")
    before = set(sys.modules)
    for _ in range(3):
        assert learner.refusal(SHAPE) is None
    assert (tmp_path / "imports").read_text() == "."
    write(source.replace("Conv2d(1, 4, 3)", "Conv2d(1, 5, 3)"))  # as long, within the same second
    assert build(learner).conv.weight.shape[0] == 5
    added = {name for name in set(sys.modules) - before if name.startswith("featbench_file_")}
    assert len(added) == 2
    assert "backbone" not in sys.modules
    assert not (tmp_path / "__pycache__").exists()


def test_dataclasses_of_the_file_work(write):
    file = write(
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from torch import nn

        @dataclass
        class Settings:
            filters: int = 3

        def make():
            return nn.Conv2d(1, Settings().filters, 3)
        """
    )
    assert Module(file, "make").refusal(SHAPE) is None


def test_names_without_a_file_say_what_to_give():
    assert "module(file=backbone.py,net=Backbone)" in Module.create({}).refusal(SHAPE)
    assert "module(file=backbone.py,net=Backbone)" in Module(file="a.py").refusal(SHAPE)
    with pytest.raises(UsageError, match="module: channels must be at least 1, not 0"):
        Module.create({"channels": 0})


@pytest.mark.parametrize(
    ("source", "net", "reason"),
    [
        (BACKBONE, "Bakbone", r"unknown net 'Bakbone': did you mean 'Backbone'\? known: Backbone; in .*backbone.py"),
        ("x = 3", "x", r"unknown net 'x': known: none; in .*backbone.py"),
        ("def f(:", "f", r"importing .*backbone.py raises SyntaxError: invalid syntax"),
        ("import nowhere_at_all", "f", r"importing .* raises ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("import sys\nsys.exit(3)", "f", "importing .* raises SystemExit: 3"),
        ("def make(): return 3", "make", "make of .* gives a int, not a torch.nn.Module"),
        ("def make(depth): return 3", "make", r"make\(\) of .* raises TypeError: make\(\) missing 1 required"),
        ("from torch import nn\nnet = nn.ReLU()", "net", "net of .* is a module already: name its class"),
        ("from torch import nn\ndef f(): return nn.LazyConv2d(3, 3)", "f", "f of .* has lazy modules"),
    ],
)
def test_files_without_a_usable_module_are_refused(source, net, reason, write):
    learner = Module(write(source), net)
    assert_refused(learner, reason)
    assert not [name for name, module in sys.modules.items() if name.startswith("featbench_file_") and not module]


def assert_refused(learner, reason, shape=SHAPE):
    said = learner.refusal(shape)
    assert said is not None
    assert re.match(reason, said), said
    assert "\n" not in said
    with pytest.raises((UsageError, PluginError)) as caught:
        build(learner, shape)
    # What builds but fails its trial is named by the learner here, and by the user's class in the refusal.
    assert str(caught.value).removeprefix(f"the network of {Module.choice(learner.parameters())} ") in said


def test_a_file_that_is_missing_or_no_python_is_refused(write, tmp_path):
    assert_refused(Module(str(tmp_path / "none.py"), "Net"), "there is no file .*none.py")
    assert_refused(Module(str(tmp_path), "Net"), "there is no file ")
    assert_refused(Module(write(name="backbone.txt"), "Backbone"), r".*backbone.txt is not a Python file \(.py\)")


def test_a_file_that_failed_is_read_again_once_it_is_mended(write):
    learner = Module(write("import nowhere_at_all"), "Backbone")
    assert "nowhere_at_all" in learner.refusal(SHAPE)
    write()
    assert learner.refusal(SHAPE) is None


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        ("return [self.conv(x)]", "Net of .* gives a list, not a tensor of features"),
        ("return self.conv(x).argmax(dim=1)", "Net of .* gives torch.int64, not torch.float32"),
        ("return self.conv(x).double()", "Net of .* gives torch.float64, not torch.float32"),
        ("return self.conv(x).mean(dim=0, keepdim=True)", r"Net of .* gives \[1, 4, 6, 6\] for 3 images; it must be"),
        ("return self.conv(x).flatten(2)", r"Net of .* gives \[3, 4, 36\] for 3 images; it must be \[3, d\] or"),
        ("return self.conv(x)[:, :0]", r"Net of .* gives \[3, 0, 6, 6\], which has no values"),
        ("return self.conv(x).abs().add(1).log().sub(5).log()", "Net of .* gives features that are not finite"),
        ("return self.conv(x[:, 0, 0])", r"Net of .* on maps \[3, 1, 8, 8\] raises RuntimeError: "),
        ("return self.conv(x).flatten(1).softmax(dim=0)", "Net of .* alone than beside others: it depends on"),
        ("return nn.functional.dropout(self.conv(x))", "Net of .* the same maps other features the second time"),
        ("return self.conv(x.mul_(2))", "Net of .* changes the maps that it is given"),
    ],
)
def test_modules_that_give_no_features_are_refused(forward, reason, given):
    assert_refused(given(forward), reason)


def test_batch_normalisation_without_its_running_statistics_depends_on_the_batch(given):
    assert_refused(given(before="self.conv = nn.BatchNorm2d(1, track_running_stats=False)"), ".*depends on the batch")
    assert given(before="self.conv = nn.BatchNorm2d(1)").refusal(SHAPE) is None


def test_numbers_that_the_state_does_not_hold_are_refused(given):
    reason = "Net of .* draws numbers that its state_dict does not hold: keep them with register_buffer"
    forward = "return x.flatten(1) @ self.drawn"
    assert_refused(given(forward, before="self.drawn = torch.randn(64, 5)"), reason)
    assert given(forward, before="self.register_buffer('drawn', torch.randn(64, 5))").refusal(SHAPE) is None


def test_maps_that_are_too_small_are_refused(given):
    assert_refused(given(), r"Net of .* on maps \[3, 1, 2, 2\] raises RuntimeError: .*Kernel size", (1, 2, 2))


def test_copies_of_several_maps_are_refused(given):
    assert_refused(given(channels=3), "channels=3 copies one map, and 2 come in", (2, 8, 8))


class Evil:
    def __reduce__(self):
        return (open, ("ran", "w"))


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_code_in_weights_is_not_run(suffix, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / f"bad{suffix}"
    for save in (torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, protocol=2))):
        save({"conv.weight": Evil()}, bad)
        assert_refused(Module(write(), "Backbone", str(bad)), r".*bad.* is damaged, or holds more than tensors")
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_no_weights(write, tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    assert_refused(Module(write(), "Backbone", str(tmp_path / "whole.pt")), ".*save net.state_dict")


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (
            {"state_dict": {"conv.bias": torch.zeros(4)}, "epoch": 3},
            r".* more than named tensors \(state_dict, epoch\)",
        ),
        (torch.zeros(3), ".*w.pt holds a Tensor, not named tensors"),
        ([1, 2], ".*w.pt holds a list, not named tensors"),
    ],
)
def test_checkpoints_of_other_forms_are_refused(held, reason, write, tmp_path):
    torch.save(held, tmp_path / "w.pt")
    assert_refused(Module(write(), "Backbone", str(tmp_path / "w.pt")), reason)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x02", bytes(100)])
def test_damaged_weights_are_refused(name, content, write, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert_refused(Module(write(), "Backbone", str(tmp_path / name)), f".*{name} (cannot be read|is damaged)")


def test_weights_that_are_missing_or_of_another_kind_are_refused(write, tmp_path):
    file = write()
    assert_refused(Module(file, "Backbone", str(tmp_path / "no.pt")), "there is no weights file .*no.pt")
    assert_refused(
        Module(file, "Backbone", "w.bin"), "weights are read from .safetensors, .pt and .pth files, and w.bin"
    )


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"conv.weight": torch.zeros(4, 1, 3, 3)}, "missing: conv.bias$"),
        (
            {"conv.weight": torch.zeros(4, 1, 3, 3), "conv.bias": torch.zeros(4), "fc": torch.zeros(1)},
            "unexpected: fc$",
        ),
        (
            {"conv.weight": torch.zeros(4, 3, 3, 3), "conv.bias": torch.zeros(4)},
            r"of another shape: conv.weight \[4, 3, 3, 3\], not \[4, 1, 3, 3\]$",
        ),
        (
            {f"module.{i}": torch.zeros(1) for i in range(5)},
            "missing: conv.weight, conv.bias; unexpected: module.0, module.1, module.2 and 2 more$",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(state, reason, write, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    learner = Module(write(), "Backbone", str(tmp_path / "w.safetensors"))
    assert_refused(learner, f"the weights of .*w.safetensors do not fit Backbone of .*: {reason}")


def test_weights_that_are_not_finite_are_refused(write, tmp_path):
    save_file(
        {"conv.weight": torch.full((4, 1, 3, 3), torch.inf), "conv.bias": torch.zeros(4)}, tmp_path / "w.safetensors"
    )
    assert_refused(Module(write(), "Backbone", str(tmp_path / "w.safetensors")), ".*not finite")


@pytest.mark.parametrize(
    ("forward", "before", "reason"),
    [
        ("return x.flatten(1)", "", "has no parameters that require gradients"),
        (
            "return self.conv(x)",
            "self.conv = nn.Conv2d(1, 2, 3).requires_grad_(False)",
            "has no parameters that require",
        ),
        ("with torch.no_grad():\n    return self.conv(x)", None, "gives features without gradients"),
        ("return self.conv(x).detach()", None, "gives features without gradients"),
        ("return x.flatten(1) * torch.ones(1, requires_grad=True)", None, "no gradient reaches the parameters of"),
        ("return (self.conv(x), x) if self.training else self.conv(x)", None, "gives a tuple, not a tensor"),
    ],
)
def test_modules_that_labels_cannot_refine_say_so_and_are_features_all_the_same(forward, before, reason, given):
    learner = given(forward, **({} if before is None else {"before": before or "pass"}))
    assert learner.refusal(SHAPE) is None
    assert reason in learner.refinement_refusal(SHAPE)


def test_a_back_propagation_that_raises_is_said(write):
    file = write(
        """
        import torch
        from torch import nn
        class Stuck(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                return x.clone()
            @staticmethod
            def backward(context, gradient):
                raise ValueError("no way back")
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(1, 2, 3)
            def forward(self, x):
                return Stuck.apply(self.conv(x))
        """
    )
    said = Module(file, "Net").refinement_refusal(SHAPE)
    assert said == f"back-propagation through Net of {file} raises ValueError: no way back"


def test_modules_with_gradients_may_be_refined_and_other_learners_by_default(write):
    learner = Module(write(), "Backbone")
    assert learner.refinement_refusal(SHAPE) is None
    with torch.no_grad():  # whatever the caller does
        assert learner.refinement_refusal(SHAPE) is None
    assert Registry().learner("gabor")().refinement_refusal(SHAPE) is None
    assert "there is no file" in Module("none.py", "Net").refinement_refusal(SHAPE)


def test_an_extractor_takes_it(write):
    images = np.random.default_rng(0).integers(256, size=(6, 8, 8), dtype=np.uint8)
    features = Extractor(learner=Module(write(), "Backbone")).fit_transform(images)
    assert features.shape == (6, 36)
    with pytest.raises(UsageError, match="unknown net 'B'"):
        Extractor(learner=Module(write(), "B")).fit(images)


def compare(*features, **options):
    return featbench.compare("digits", features=features, draws=1, device="cpu", track=False, **options)


def test_it_is_compared_as_any_learner_and_read_back(write, tmp_path):
    text = f"module(file={write()},net=Backbone)"
    rows = compare(text, regimes=["fixed"])
    (row,) = rows[rows["learner"].str.startswith("module")].to_dict("records")
    assert (row["status"], row["learner"], row["regime"]) == ("ok", text, "fixed")
    assert row["scores"][0] > 60
    # Another classifier takes the features that the store holds, of the network that it holds.
    again = compare(text, regimes=["fixed"], classifiers=["logistic", "knn"])
    assert again[again["learner"].str.startswith("module")]["status"].tolist() == ["ok", "ok"]


def test_labels_refine_it(write):
    rows = compare(f"module(file={write()},net=Backbone)", regimes=["fixed+"])
    (row,) = rows[rows["learner"].str.startswith("module")].to_dict("records")
    assert (row["status"], row["regime"]) == ("ok", "fixed+"), row["message"]
    assert row["scores"][0] > 60


def test_a_module_that_cannot_be_used_is_a_row_with_its_reason(write):
    rows = compare(f"module(file={write()},net=Bakbone)", "module", "module(file=none.py,net=A)", regimes=["fixed"])
    found = rows[rows["learner"].str.startswith("module")]
    assert found["status"].tolist() == ["skipped"] * 3
    assert "did you mean 'Backbone'" in found["message"].iloc[0]
    assert "name its file and its class" in found["message"].iloc[1]
    assert found["message"].iloc[2] == "there is no file none.py"


def test_editing_the_file_makes_its_results_anew(write):
    text = f"module(file={write()},net=Backbone)"
    first, same = (compare(text, regimes=["fixed"]) for _ in range(2))
    write(BACKBONE.replace("max_pool2d(self.conv(x).relu(), 2)", "max_pool2d(self.conv(x).relu(), 6)"))
    edited = compare(text, regimes=["fixed"])
    scores = [rows[rows["learner"] == text]["scores"].iloc[0] for rows in (first, same, edited)]
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]


def test_it_works_in_a_process_that_never_saw_the_file(write, tmp_path):
    learner = Module(write(), "Backbone")
    (tmp_path / "learner.pickle").write_bytes(pickle.dumps(learner))
    program = (
        "import pickle, sys; learner = pickle.load(open(sys.argv[1], 'rb')); "
        "network = learner.network((1, 8, 8), None, 3); print(float(network.conv.weight.sum()))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "learner.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) == float(learner.network(SHAPE, None, 3).conv.weight.detach().sum())
