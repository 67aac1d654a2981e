"""The `torch` loader: what it computes, and every file, factory and declaration it refuses."""

from __future__ import annotations

import copy
import pickle
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from robustbench_lite import LoadedModel, ModelError, Places
from robustbench_lite.builtin.models import TORCH
from robustbench_lite.builtin.models.parameters import Preprocessing, TorchParams
from robustbench_lite.builtin.models.preprocess import Preprocess, as_logits, class_columns
from robustbench_lite.builtin.models.torch_file import load

FACTORIES = '''
import torch
from torch import nn

VALUE = 3

def linear(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, classes))

def image(channels: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1))

def double() -> nn.Module:
    return linear().double()

def broken() -> nn.Module:
    raise FileNotFoundError("no architecture today")

def not_a_module() -> object:
    return 3

def nan() -> nn.Module:
    net = linear()
    net[2].bias.data[1] = float("nan")
    return net

class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(x.flatten(1)), x

class Shared:
    @staticmethod
    def build() -> nn.Module:
        return linear()

class Pixels(nn.Module):
    """Returns the pixels it was given, as five classes."""

    def forward(self, x):
        return x.flatten(1)
'''


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path with the modules `nets_here`, `nets_broken`, `nets_needy`."""
    (tmp_path / "nets_here.py").write_text(FACTORIES)
    (tmp_path / "nets_broken.py").write_text("raise OSError('no licence')")
    (tmp_path / "nets_needy.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("nets_here", "nets_broken", "nets_needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def opened(device: torch.device | str = "cpu", **fields: object) -> LoadedModel:
    here = Path.cwd()
    params = TorchParams.model_validate(fields)
    places = Places(suite=here, data=None, cache=here)
    return load(params, places=places, device=str(device), threads=1)


def linear() -> nn.Module:
    """The network of the factory `nets_here:linear`, with other weights than its own."""
    last = nn.Linear(12, 3)
    with torch.no_grad():
        last.weight.copy_(torch.arange(36.0).reshape(3, 12) / 36)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), last).eval()


# ---------------------------------------------------------------- what it computes


def save_safetensors(net: nn.Module, path: Path) -> Path:
    save_file(net.state_dict(), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def save_state(net: nn.Module, path: Path) -> Path:
    torch.save(net.state_dict(), path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def save_legacy_state(net: nn.Module, path: Path) -> Path:
    torch.save(net.state_dict(), path.with_suffix(".pth"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pth")


@pytest.mark.parametrize("save", [save_safetensors, save_state, save_legacy_state])
def test_weights_of_every_safe_format_give_the_network_they_came_from(
    nets: Path, save: Callable[[nn.Module, Path], Path], device: torch.device
) -> None:
    net = linear()
    model = opened(device, factory="nets_here:linear", weights=save(net, nets / "w"))
    x = torch.rand(5, 3, 2, 2)
    assert torch.allclose(model.predict(x.to(device)).cpu(), net(x), atol=1e-6)
    assert (model.num_classes, model.output, model.provider) == (3, "logits", "torch")
    assert model.facts["parameters"] == 39


def test_the_artefact_is_frozen_in_eval_mode_and_differentiable(nets: Path) -> None:
    model = opened(factory="nets_here:linear")
    whole = model.differentiable
    assert whole is not None
    assert not any(module.training for module in whole.modules())
    assert not any(parameter.requires_grad for parameter in whole.parameters())
    x = torch.rand(4, 3, 2, 2, requires_grad=True)
    out = whole(x)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.abs().sum() > 0
    assert torch.equal(out.detach(), model.predict(x))
    assert not model.predict(x).requires_grad


def test_an_initialisation_is_the_same_every_time_and_leaves_the_global_stream(nets: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = opened(factory="nets_here:linear")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    x = torch.rand(2, 12)
    assert torch.equal(first.predict(x), opened(factory="nets_here:linear").predict(x))


def test_a_network_of_doubles_runs_in_float32(nets: Path) -> None:
    out = opened(factory="nets_here:double").predict(torch.rand(2, 12))
    assert out.dtype == torch.float32


def test_kwargs_reach_the_factory_and_a_dotted_name_is_found(nets: Path) -> None:
    assert opened(factory="nets_here:linear", kwargs={"classes": 7}).num_classes == 7
    assert opened(factory="nets_here:Shared.build").num_classes == 3


def test_classes_are_counted_by_a_dry_run_or_declared(nets: Path) -> None:
    assert opened(factory="nets_here:image", input_shape=[3, 8, 8]).num_classes == 5
    model = opened(factory="nets_here:image", num_classes=5)
    assert model.predict(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    assert model.input_shape is None


def test_one_score_becomes_two_classes(nets: Path) -> None:
    x = torch.rand(6, 12)
    score = opened(factory="nets_here:linear", kwargs={"classes": 1})
    z = score.predict(x)
    assert score.num_classes == 2
    assert torch.equal(z[:, 0], torch.zeros(6))
    assert score.differentiable is not None
    assert torch.equal(score.differentiable(x), z)


# ---------------------------------------------------------------- outputs


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8))
def test_a_single_score_means_the_same_in_all_three_forms(scores: list[float]) -> None:
    z = torch.tensor(scores, dtype=torch.float64)[:, None]
    from_logits = class_columns(z.float(), "logits", 2).softmax(1)
    from_probability = class_columns(z.sigmoid().float(), "probabilities", 2)
    from_log = class_columns(nn.functional.logsigmoid(z).float(), "log-probabilities", 2).exp()
    exact = torch.cat([1 - z.sigmoid(), z.sigmoid()], dim=1).float()
    for found in (from_logits, from_probability, from_log):
        assert torch.allclose(found, exact, atol=1e-6)


@given(st.integers(1, 6), st.integers(2, 5))
@settings(max_examples=20)
def test_logits_of_probabilities_give_the_probabilities_back(n: int, k: int) -> None:
    own = torch.randn(n, k).softmax(1)
    assert torch.allclose(as_logits(own, "probabilities").softmax(1), own, atol=1e-6)
    assert as_logits(torch.tensor([[0.0, 1.0]]), "probabilities").isfinite().all()


def test_a_declared_output_decides_what_the_logits_are(nets: Path) -> None:
    x = torch.rand(4, 5)
    x = x / x.sum(1, keepdim=True)
    model = opened(
        factory="nets_here:Pixels", output="probabilities", num_classes=5, input_shape=[5]
    )
    assert model.differentiable is not None
    assert torch.equal(model.predict(x), x)
    assert torch.allclose(model.differentiable(x).softmax(1), x, atol=1e-6)


def test_trailing_ones_are_dropped_and_other_shapes_refused() -> None:
    assert class_columns(torch.zeros(2, 3, 1, 1), "logits", 3).shape == (2, 3)
    assert class_columns(torch.zeros(4), "logits", 2).shape == (4, 2)
    with pytest.raises(ModelError, match=r"returns shape \[2, 3, 4\]; expected \[n, 3\]"):
        class_columns(torch.zeros(2, 3, 4), "logits", 3)
    with pytest.raises(ModelError, match="a dict with the keys logits"):
        class_columns({"logits": 1}, "logits", 3)


# ---------------------------------------------------------------- preprocessing


def prepared(x: Tensor, **declared: object) -> Tensor:
    return Preprocess(Preprocessing.model_validate(declared)).forward(x)


def test_scale_channels_and_normalisation_are_the_formula() -> None:
    x = torch.rand(2, 3, 4, 4)
    mean, std = [100.0, 110.0, 120.0], [1.0, 2.0, 4.0]
    got = prepared(x, scale=255, channels="bgr", mean=mean, std=std)
    for channel in range(3):
        expected = (x[:, 2 - channel] * 255 - mean[channel]) / std[channel]
        assert torch.allclose(got[:, channel], expected)
    assert torch.equal(prepared(x), x)
    assert torch.allclose(prepared(x.flatten(1), mean=0.5, std=0.25), (x.flatten(1) - 0.5) / 0.25)


def test_resize_keeps_constants_and_the_mean_and_is_free_at_its_own_size() -> None:
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(prepared(x, resize=8), x)
    small = prepared(x, resize=[4, 2])
    assert small.shape == (1, 1, 4, 2)
    assert torch.allclose(prepared(torch.full((1, 1, 8, 8), 0.3), resize=5), torch.tensor(0.3))
    stripes = torch.zeros(1, 1, 8, 8)
    stripes[..., ::2] = 1.0  # without antialiasing, every second column would alias to 0 or 1
    assert torch.allclose(prepared(stripes, resize=[8, 2])[..., 0], torch.tensor(0.5), atol=0.1)


def test_preprocessing_is_inside_the_gradient(nets: Path) -> None:
    model = opened(factory="nets_here:Pixels", num_classes=5, scale=3.0, std=0.5)
    x = torch.rand(2, 5, requires_grad=True)
    assert model.differentiable is not None
    (grad,) = torch.autograd.grad(model.differentiable(x).sum(), x)
    assert torch.allclose(grad, torch.full((2, 5), 6.0))


@pytest.mark.parametrize(
    ("declared", "shape", "message"),
    [
        ({"channels": "bgr"}, (2, 1, 4, 4), r"channels: bgr needs inputs \[n, 3, h, w\]"),
        ({"resize": 4}, (2, 9), r"resize needs inputs \[n, c, h, w\]; the data are \[2, 9\]"),
        ({"mean": [0.1, 0.2]}, (2, 3, 4, 4), r"mean with 2 numbers needs inputs \[n, 2, ...\]"),
        ({"std": [0.1, 0.2]}, (2, 3, 4, 4), "std with 2 numbers"),
    ],
)
def test_a_declaration_that_does_not_fit_the_data_is_named(
    declared: dict[str, object], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        prepared(torch.zeros(shape), **declared)


@pytest.mark.parametrize(
    "fields",
    [
        {"std": 0},
        {"std": [0.1, -1]},
        {"scale": -1},
        {"resize": 0},
        {"mean": []},
        {"num_classes": 1},
    ],
)
def test_numbers_out_of_range_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TorchParams.model_validate({"factory": "a:b", **fields})


# ---------------------------------------------------------------- factories


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_pkg.nets:mlp", "no module 'no_such_pkg'.*python_path"),
        ("nets_here.sub:mlp", "no module 'nets_here.sub'"),
        ("nets_needy:mlp", "needs 'no_such_dependency', which is not installed"),
        ("nets_broken:mlp", "importing nets_broken raised OSError: no licence"),
        ("nets_here:linaer", "has no 'linaer'; did you mean 'linear'"),
        ("nets_here:VALUE", "is of type int; expected a function"),
        ("nets_here:broken", "raised FileNotFoundError: no architecture today"),
        ("nets_here:not_a_module", "returned int; expected a torch.nn.Module"),
        ("nets_here:nan", "NaN or infinite values in 2.bias"),
    ],
)
def test_a_factory_that_fails_is_named_with_its_cause(
    nets: Path, factory: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        opened(factory=factory)


def test_wrong_arguments_show_the_factorys_own(nets: Path) -> None:
    with pytest.raises(ModelError, match=r"TypeError.*its parameters: \(classes: int = 3\)"):
        opened(factory="nets_here:linear", kwargs={"width": 3})


@pytest.mark.parametrize("factory", ["nets", "nets:", "a b:c", ":x"])
def test_a_factory_is_spelled_module_colon_name(factory: str) -> None:
    with pytest.raises(ValidationError, match="factory"):
        TorchParams(factory=factory)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither factory nor weights"),
        ({"weights": "a.safetensors"}, "a.safetensors holds weights and no network"),
        ({"weights": "a.safetensors", "trust": True}, "no network"),
        ({"weights": "a.pt2"}, "with trust: true"),
    ],
)
def test_without_a_factory_the_file_must_be_a_trusted_network(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TorchParams.model_validate(fields)


def test_the_number_of_classes_must_be_known(nets: Path) -> None:
    with pytest.raises(ModelError, match="add num_classes"):
        opened(factory="nets_here:image")
    with pytest.raises(ModelError, match=r"input_shape.*refuses inputs of shape \[2, 1, 8, 8\]"):
        opened(factory="nets_here:image", input_shape=[1, 8, 8])


# ---------------------------------------------------------------- weights


class Evil:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_pickle_runs_nothing_without_trust(nets: Path) -> None:
    weights, proof = nets / "evil.pt", nets / "proof"
    weights.write_bytes(pickle.dumps(Evil(proof), protocol=2))
    with pytest.raises(ModelError, match=r"holds Python objects.*trust: true"):
        opened(factory="nets_here:linear", weights=weights)
    torch.save({"0.weight": Evil(proof)}, weights)
    with pytest.raises(ModelError, match="would run its code"):
        opened(factory="nets_here:linear", weights=weights)
    assert not proof.exists()


def sound(path: Path) -> bytes:
    return save_safetensors(linear(), path).read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "an HTML page"),
        (b"\n  <html><body>404", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"PK\x03\x04 and nothing more", "truncated"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x93NUMPY\x01\x00", "NumPy .npy"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b'{"weights": 1}', "JSON"),
        (b"just some text that is no weights", "of no format known here"),
    ],
)
def test_other_files_are_told_apart(nets: Path, content: bytes, message: str) -> None:
    weights = nets / "w.safetensors"
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        opened(factory="nets_here:linear", weights=weights)


@pytest.mark.parametrize("keep", [0.3, 0.9])
@pytest.mark.parametrize("save", [save_safetensors, save_state, save_legacy_state])
def test_a_truncated_file_says_so(
    nets: Path, save: Callable[[nn.Module, Path], Path], keep: float
) -> None:
    weights = save(linear(), nets / "w")
    raw = weights.read_bytes()
    weights.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(ModelError, match="truncated"):
        opened(factory="nets_here:linear", weights=weights)


def test_a_missing_file_names_the_nearest(nets: Path) -> None:
    save_safetensors(linear(), nets / "model")
    with pytest.raises(ModelError, match=r"does not exist; did you mean 'model.safetensors'"):
        opened(factory="nets_here:linear", weights=nets / "modle.safetensors")
    with pytest.raises(ModelError, match="there is no folder"):
        opened(factory="nets_here:linear", weights=nets / "nowhere" / "w.safetensors")
    with pytest.raises(ModelError, match="is a folder"):
        opened(factory="nets_here:linear", weights=nets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("2.bias"), r"missing in the file: 2\.bias"),
        (lambda s: s.update({"2.bais": s.pop("2.bias")}), r"2\.bais \(nearest missing: 2\.bias\)"),
        (
            lambda s: s.update({"2.bias": torch.zeros(4)}),
            r"2\.bias is \[4\] in the file and \[3\] in the network",
        ),
        (lambda s: s.update({"2.bias": torch.tensor([0.0, torch.inf, 0.0])}), r"infinite.*2\.bias"),
        (
            lambda s: s.update({f"module.{name}": s.pop(name) for name in list(s)}),
            r"save net\.module\.state_dict\(\)",
        ),
        (lambda s: s.update({f"extra{i}": torch.zeros(1) for i in range(9)}), "and 5 more"),
    ],
)
def test_weights_that_do_not_fit_are_explained(
    nets: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    state = dict(linear().state_dict())
    change(state)
    save_file(state, nets / "w.safetensors")
    with pytest.raises(ModelError, match=message):
        opened(factory="nets_here:linear", weights=nets / "w.safetensors")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, r"save checkpoint\['state_dict'\]"),
        ({"epoch": 3}, "no tensors at all"),
        ([torch.zeros(1)], "holds list; expected a state dict"),
    ],
)
def test_a_checkpoint_is_no_state_dict(nets: Path, saved: object, message: str) -> None:
    torch.save(saved, nets / "w.pt")
    with pytest.raises(ModelError, match=message):
        opened(factory="nets_here:linear", weights=nets / "w.pt")


# ---------------------------------------------------------------- whole networks, with trust


def script(net: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript, says torch 2.13
        torch.jit.save(torch.jit.script(net), path)


def export(net: nn.Module, path: Path) -> None:
    n = torch.export.Dim("n")
    program = torch.export.export(net, (torch.zeros(2, 3, 2, 2),), dynamic_shapes=({0: n},))
    torch.export.save(program, path)


def pickle_whole(net: nn.Module, path: Path) -> None:
    torch.save(net, path)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch copying its own export
@pytest.mark.parametrize(
    ("save", "name"), [(script, "net.pt"), (export, "net.pt2"), (pickle_whole, "net.pth")]
)
def test_a_trusted_network_runs_as_it_was_saved(
    nets: Path, save: Callable[[nn.Module, Path], None], name: str
) -> None:
    net, path = linear(), nets / name
    save(net, path)
    model = opened(weights=path, trust=True, num_classes=3)
    x = torch.rand(5, 3, 2, 2)
    assert torch.allclose(model.predict(x), net(x), atol=1e-6)
    whole = model.differentiable
    assert whole is not None
    assert not any(module.training for module in whole.modules())
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(copy.deepcopy(whole)(leaf).sum(), leaf)
    assert grad.abs().sum() > 0
    with pytest.raises(ModelError, match=r"refuses inputs of shape \[5, 3, 9, 9\]"):
        model.predict(torch.rand(5, 3, 9, 9))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match="truncated"):
        opened(weights=path, trust=True, num_classes=3)


def test_a_trusted_state_dict_still_needs_its_factory(nets: Path) -> None:
    path = save_state(linear(), nets / "w")
    with pytest.raises(ModelError, match="no network: give factory"):
        opened(weights=path, trust=True)
    (nets / "w.pt").write_bytes(sound(nets / "x"))
    with pytest.raises(
        ModelError, match=r"safetensors file \(weights only\); expected TorchScript"
    ):
        opened(weights=path, trust=True)


def test_a_trusted_pickled_module_gives_its_weights_to_a_factory(nets: Path) -> None:
    net = linear()
    torch.save(net, nets / "w.pt")
    model = opened(factory="nets_here:linear", weights=nets / "w.pt", trust=True)
    x = torch.rand(2, 12)
    assert torch.allclose(model.predict(x), net(x), atol=1e-6)


# ---------------------------------------------------------------- at run time, and the spec


def test_an_input_that_does_not_fit_is_a_model_error(nets: Path) -> None:
    with pytest.raises(ModelError, match=r"refuses inputs of shape \[2, 7\]"):
        opened(factory="nets_here:linear").predict(torch.rand(2, 7))
    with pytest.raises(ModelError, match="returns a tuple of 2; expected one tensor"):
        opened(factory="nets_here:TwoHeads").predict(torch.rand(2, 12))
    with pytest.raises(ModelError, match=r"returns shape \[2, 3\]; expected \[n, 9\]"):
        opened(factory="nets_here:linear", num_classes=9).predict(torch.rand(2, 12))


def test_the_content_is_the_weights_and_the_factorys_source_and_runs_nothing(nets: Path) -> None:
    package = nets / "nets_pack"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "deep.py").write_text(textwrap.dedent("raise RuntimeError('imported')"))
    places = Places(suite=nets, data=None, cache=nets)
    params = TorchParams(factory="nets_pack.deep:net", weights=nets / "w.safetensors")
    assert TORCH.content(params, places) == {
        "weights": nets / "w.safetensors",
        "factory": package / "deep.py",
    }
    assert TORCH.content(TorchParams(factory="no.such.module:net"), places) == {}
    assert TORCH.access(params) == "gradient"


def test_the_specs_import_no_heavy_library() -> None:
    import subprocess

    code = (
        "import sys, robustbench_lite.builtin.models as m; list(m.robeval_models());"
        "print([n for n in ('torch', 'onnx', 'onnxruntime', 'safetensors') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
