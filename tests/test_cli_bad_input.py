"""Bad input through the real command line: each has its message and its exit code.

Whatever is wrong, nothing ends in a traceback and nothing that was computed is lost.
"""

from __future__ import annotations

import errno
import json
import pickle
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_lite import records
from robustbench_lite.store import load_run
from robustbench_lite.types import Samples

if TYPE_CHECKING:
    from tests.conftest import Ended, Robeval

WriteSuite = Callable[..., Path]
Raw = Callable[..., Path]

TESTS = Path(__file__).parent
EMBEDDED = resources.files("robustbench_lite").joinpath("embedded")
SOUND = "linear: {load: torch, factory: 'nearest_mean:linear'}"
SAMPLE = "mnist: {load: mnist-sample, take: 20}"
NOISE = "attacks: {noise: {attack: uniform-noise, norm: linf, eps: 0.1}}\nreports: [markdown]\n"
NETS = '''\
"""Networks that fail, each in one way."""
from torch import nn

class Moody(nn.Module):
    """Takes one sample; with more it raises what it was made with."""
    def __init__(self, problem):
        super().__init__()
        self.problem = problem
        self.layer = nn.Linear(784, 10)
    def forward(self, x):
        if len(x) > 1:
            raise self.problem
        return self.layer(x.flatten(1))

def key_error():
    return Moody(KeyError("only one at a time"))
def runtime_error():
    return Moody(RuntimeError("only one at a time"))
def two_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(100, 10))
not_a_function = 3
'''


def refused(ended: Ended, code: int, *parts: str) -> None:
    """The exit code, every part of the message, and no traceback."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err + ended.out
    for part in parts:
        assert part in ended.err + ended.out


def nothing_ran() -> None:
    """No run directory was made."""
    assert not Path("reports").exists()


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Raw:
    """Write a suite from its models, datasets and the rest."""
    (tmp_path / "failing_nets.py").write_text(NETS)
    monkeypatch.delitem(sys.modules, "failing_nets", raising=False)

    def write(*models: str, datasets: tuple[str, ...] = (SAMPLE,), rest: str = NOISE) -> Path:
        lines = ["schema: 1", "name: bad", f"python_path: ['{TESTS}', .]", "models:"]
        lines += [f"  {model}" for model in models or (SOUND,)]
        lines += ["datasets:", *(f"  {dataset}" for dataset in datasets)]
        path = tmp_path / "suite.yaml"
        path.write_text("\n".join(lines) + "\n" + rest)
        return path

    return write


def statuses(out: Path) -> dict[tuple[str, str, str], str]:
    """(model, dataset, entry) -> status of every stored cell."""
    stored = load_run(out)
    return {
        (cell.model, cell.dataset, cell.entry): stored.results[cell.id].status
        for cell in stored.plan.cells
    }


# ---------------------------------------------------------------- the suite file


@pytest.mark.parametrize("command", ["run", "plan", "validate"])
def test_a_missing_suite_names_the_one_that_is_there(
    robeval: Robeval, write_suite: WriteSuite, command: str
) -> None:
    write_suite(NOISE)
    ended = robeval(command, "siute.yaml")
    refused(ended, 2, "siute.yaml: error: there is no such suite file")
    assert "did you mean 'suite.yaml'?" in ended.err
    nothing_ran()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ("suite.yaml: error: is empty", "schema: 1")),
        ("# only a comment\n", ("suite.yaml: error: is empty", "schema: 1")),
        ("- fgsm\n", ("suite.yaml:1:1: error:", "a mapping of keys to values", "a list")),
        ("\x00", ("suite.yaml:1:1: error:", "U+0000 is not allowed")),
    ],
    ids=["empty", "comment", "list", "control"],
)
def test_a_suite_without_content(
    robeval: Robeval, tmp_path: Path, content: str, parts: tuple[str, ...]
) -> None:
    (tmp_path / "suite.yaml").write_text(content)
    refused(robeval("run", "suite.yaml"), 2, *parts)


def test_a_suite_that_is_a_folder_or_no_text(robeval: Robeval, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(robeval("run", "folder"), 2, "folder: error: is a folder; expected a suite file")
    (tmp_path / "model.onnx").write_bytes(b"schema: 1\nname: \xff")
    refused(robeval("run", "model.onnx"), 2, "model.onnx:2:7: error:", "0xff is not UTF-8")
    refused(robeval("run", "model.onnx/suite.yaml"), 2, "model.onnx/suite.yaml: error:")


FGSM = "attacks: {{f: {{attack: fgsm, norm: linf, eps: {}}}}}\n"
WRONG_TEXT = {
    "syntax": ("attacks: {f: [}\n", ":8:15: error: YAML syntax:", "found '}'"),
    "tab": ("attacks:\n\tf: 1\n", ":9:1: error: YAML syntax:", "help: indent with spaces"),
    "unknown-key": ("atacks: {}\n", ":8:1: error:", "unknown key 'atacks'", "mean 'attacks'?"),
    "unknown-parameter": (
        "attacks: {p: {attack: pgd, norm: linf, eps: 0.1, step: 3}}\n",
        ":8:50: error: attacks.p.step:",
        "unknown",
        "did you mean 'steps'?",
    ),
    "unknown-attack": (
        "attacks: {f: {attack: fgms, norm: linf, eps: 0.1}}\n",
        ":8:23: error: attacks.f.attack: unknown attack 'fgms'",
        "help: did you mean 'fgsm'?",
    ),
    "eps-text": (
        FGSM.format("abc"),
        ":8:46: error: attacks.f.eps: 'abc' is not",
        "as 0.1 or 8/255",
    ),
    "eps-negative": (FGSM.format(-1), ":8:46: error: attacks.f.eps: -1 is negative", "at least 0"),
    "eps-0/0": (FGSM.format("0/0"), ":8:46: error: attacks.f.eps: '0/0' divides by zero", "8/255"),
    "eps-nan": (FGSM.format(".nan"), ":8:46: error: attacks.f.eps: .nan is not finite", "8/255"),
    "duplicate": (
        "attacks:\n  f: {attack: fgsm, eps: 0.1}\n  f: {attack: pgd, eps: 0.1}\n",
        ":10:3: error: attacks.f: duplicate key; it stands first in line 9",
    ),
    "vars-cycle": (
        "vars: {a: '${b}', b: '${a}'}\n" + FGSM.format("'${a}'"),
        ":8:22: error: vars.b: variable 'a' refers to itself: a -> b -> a",
    ),
    "unknown-model": (
        "attacks: {f: {attack: fgsm, eps: 0.1, source: linaer}}\n",
        ":8:47: error: attacks.f.source: unknown model 'linaer'",
        "help: did you mean 'linear'?",
    ),
    "gate-of-nothing": (
        FGSM.format(0.1) + "gates: {g: {metric: robust_accuracy, attack: f, eps: 0.2, min: 0.5}}\n",
        ":9:54: error: gates.g.eps: no selected attack has eps 0.2; there are: 0.1",
    ),
}


@pytest.mark.parametrize("case", WRONG_TEXT)
def test_wrong_text_is_one_problem_at_its_place(
    robeval: Robeval, write_suite: WriteSuite, case: str
) -> None:
    text, where, *parts = WRONG_TEXT[case]
    path = write_suite(text)
    ended = robeval("run", str(path))
    refused(ended, 2, f"{path}{where}", *parts)
    # one cause, one problem: what follows from it is noise
    assert ended.err.count(" error: ") == 1, ended.err
    assert ended.out == ""
    nothing_ran()


def test_all_problems_are_told_at_once_in_their_order(
    robeval: Robeval, write_suite: WriteSuite
) -> None:
    path = write_suite(
        """\
        seed: -1
        attacks:
          f: {attack: fgms, norm: Linf, eps: 0.1}
          g: {attack: fgsm, norm: l2, eps: abc}
        """
    )
    ended = robeval("run", str(path))
    refused(ended, 2, "fgms", "'Linf' is not one of linf, l2, l1, l0", "did you mean 'linf'?")
    places = [line.split(": error")[0] for line in ended.err.splitlines() if ": error:" in line]
    assert places == [f"{path}:{place}" for place in ("8:7", "10:15", "10:27", "11:36")]
    for command in ("plan", "validate"):
        assert robeval(command, str(path)).err == ended.err


def test_a_cycle_of_extends_names_every_file(robeval: Robeval, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\nschema: 1\n")
    (tmp_path / "b.yaml").write_text("schema: 1\nextends: [c.yaml]\n")
    (tmp_path / "c.yaml").write_text("extends: a.yaml\n")
    ended = robeval("run", "a.yaml")
    refused(ended, 2, "c.yaml:1:10: error: extends:", "a.yaml -> b.yaml -> c.yaml -> a.yaml")
    (tmp_path / "self.yaml").write_text("schema: 1\nextends: self.yaml\n")
    refused(robeval("run", "self.yaml"), 2, "self.yaml:2:10: error: extends:", "extends itself")


# ---------------------------------------------------------------- files found missing by the plan


def test_a_missing_model_file(robeval: Robeval, raw: Raw) -> None:
    path = raw(SOUND, "gone: {load: onnx, path: models/gone.onnx}")
    missing = str(path.parent / "models" / "gone.onnx")
    refused(robeval("run", str(path)), 7, f"{path}:6:3: error: models.gone", missing, "no file")
    nothing_ran()


def test_every_missing_file_is_told_at_once(robeval: Robeval, raw: Raw) -> None:
    path = raw(
        "a: {load: onnx, path: a.onnx}",
        "b: {load: torch, factory: 'nearest_mean:linear', weights: b.safetensors}",
        datasets=("c: {load: arrays, path: c.npz}",),
    )
    ended = robeval("run", str(path))
    refused(ended, 7, ":5:3:", "a.onnx", ":6:3:", "b.safetensors", ":8:3:", "c.npz")
    # each line starts with its place, as in every other message about a suite
    assert all(line.startswith(f"{path}:") for line in ended.err.splitlines()), ended.err
    nothing_ran()


def test_a_model_file_that_is_not_the_pinned_one(
    robeval: Robeval, raw: Raw, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(EMBEDDED.joinpath("mnist_cnn.onnx").read_bytes())
    path = raw(f"m: {{load: onnx, path: model.onnx, sha256: '{'0' * 64}'}}")
    ended = robeval("run", str(path))
    refused(ended, 7, f"{path}:5:3: error: models.m: sha256", "0" * 64, "100f77bc5a2ea243")
    refused(ended, 7, "model.onnx", "update the pin")
    nothing_ran()


# ---------------------------------------------------------------- files found broken on loading


def _onnx() -> bytes:
    return EMBEDDED.joinpath("mnist_cnn.onnx").read_bytes()


def _weights() -> bytes:
    return EMBEDDED.joinpath("mnist_mlp.safetensors").read_bytes()


HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
BROKEN_FILES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "truncated.onnx": (lambda: _onnx()[:300_000], "truncated", "export it again"),
    "empty.onnx": (lambda: b"", "is empty (0 bytes)", "export the model again"),
    "page.onnx": (lambda: HTML, "is an HTML page", "expected an ONNX file"),
    "weights.onnx": (_weights, "is a safetensors file", "expected an ONNX file"),
    "truncated.safetensors": (lambda: _weights()[:300_000], "truncated", "save it again"),
    "page.safetensors": (lambda: HTML, "is an HTML page", "expected weights as .safetensors"),
    "graph.safetensors": (_onnx, "of no format known here", "expected weights as .safetensors"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_model_file_costs_its_own_cells_only(
    robeval: Robeval, raw: Raw, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(BROKEN_FILES[name][0]())
    parts = BROKEN_FILES[name][1:]
    loader = f"load: torch, factory: 'robustbench_lite.embedded.nets:mlp', weights: {name}"
    broken = f"broken: {{{f'load: onnx, path: {name}' if name.endswith('.onnx') else loader}}}"
    ended = robeval("run", str(raw(broken, SOUND)), "-o", "out")
    refused(ended, 7, "model 'broken'", str(tmp_path / name), *parts)
    _only_the_sound_model_has_numbers(tmp_path / "out")


def _only_the_sound_model_has_numbers(out: Path) -> None:
    assert statuses(out) == {
        ("broken", "mnist", "clean"): "failed",
        ("broken", "mnist", "noise"): "failed",
        ("linear", "mnist", "clean"): "ok",
        ("linear", "mnist", "noise"): "ok",
    }
    assert json.loads((out / "gates.json").read_text())["exit_code"] == 7


class Payload:
    """Unpickling it makes a file: the sign that foreign code ran."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("form", ["torch-zip", "protocol-2", "protocol-4", "module"])
def test_a_pickle_without_trust_is_never_run(
    robeval: Robeval, raw: Raw, tmp_path: Path, form: str
) -> None:
    file = tmp_path / "weights.pt"
    if form.startswith("protocol"):
        file.write_bytes(pickle.dumps(Payload(), protocol=int(form[-1])))
    else:
        torch.save(Payload() if form == "torch-zip" else nn.Linear(784, 10), file)
    broken = "broken: {load: torch, factory: 'nearest_mean:linear', weights: weights.pt}"
    ended = robeval("run", str(raw(broken, SOUND)), "-o", "out")
    refused(ended, 7, str(file), "would run its code", "safetensors", "trust: true")
    assert not (tmp_path / "ran").exists()
    _only_the_sound_model_has_numbers(tmp_path / "out")


def test_a_pickled_network_without_trust_or_factory(
    robeval: Robeval, raw: Raw, tmp_path: Path
) -> None:
    torch.save(nn.Linear(784, 10), tmp_path / "net.pt")
    path = raw("m: {load: torch, weights: net.pt}")
    refused(robeval("run", str(path)), 2, f"{path}:5:6: error: models.m:", "net.pt", "trust: true")
    nothing_ran()


FACTORIES = {
    "nearest_maen:linear": ("there is no module 'nearest_maen'", "python_path: [.]"),
    "nearest_mean:liner": ("nearest_mean has no 'liner'", "did you mean 'linear'?"),
    "nearest_mean:raising": ("raised RuntimeError: no weights today",),
    "nearest_mean:sample": ("returned tuple; expected a torch.nn.Module",),
    "failing_nets:not_a_function": ("is of type int; expected a function",),
}


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_factory_that_cannot_build(
    robeval: Robeval, raw: Raw, tmp_path: Path, factory: str
) -> None:
    broken = f"broken: {{load: torch, factory: '{factory}'}}"
    ended = robeval("run", str(raw(broken, SOUND)), "-o", "out")
    refused(ended, 7, f"model 'broken': factory '{factory}'", *FACTORIES[factory])
    _only_the_sound_model_has_numbers(tmp_path / "out")


NETWORKS = {
    "narrow": ("[1, 1, 28, 28]", "cannot be multiplied"),
    "two_classes": ("'mnist' has label 9", "knows classes 0 to 1", "use the model's own data"),
    "runtime_error": ("only one at a time",),
    "key_error": ("only one at a time",),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_does_not_fit_the_data(
    robeval: Robeval, raw: Raw, tmp_path: Path, name: str
) -> None:
    broken = f"broken: {{load: torch, factory: 'failing_nets:{name}'}}"
    ended = robeval("run", str(raw(broken, SOUND)), "-o", "out", "--batch-size", "10")
    refused(ended, 7, "'broken'", *NETWORKS[name])
    _only_the_sound_model_has_numbers(tmp_path / "out")


def test_a_source_with_fewer_classes_than_the_labels(
    robeval: Robeval, raw: Raw, tmp_path: Path
) -> None:
    path = raw(
        SOUND,
        "twin: {load: torch, factory: 'failing_nets:two_classes'}",
        rest="attacks: {f: {attack: fgsm, norm: linf, eps: 0.1, source: twin}}\n",
    )
    ended = robeval("run", str(path), "-o", "out")
    refused(ended, 7, "'mnist' has label 9", "'twin'", "classes 0 to 1")
    assert statuses(tmp_path / "out")["linear", "mnist", "clean"] == "ok"


def test_a_run_without_any_number_is_still_reported(
    robeval: Robeval, raw: Raw, tmp_path: Path
) -> None:
    broken = "broken: {load: torch, factory: 'nearest_mean:raising'}"
    ended = robeval("run", str(raw(broken, rest=NOISE.partition("reports")[0])), "-o", "out")
    refused(ended, 7, "no weights today")
    assert "no weights today" in (tmp_path / "out" / "report.html").read_text()
    assert "no weights today" in (tmp_path / "out" / "summary.md").read_text()


# ---------------------------------------------------------------- data


@pytest.fixture
def arrays(tmp_path: Path) -> Callable[..., str]:
    """Write bad.npz with one value of x or y replaced; the entry that loads it."""

    def write(*, x: dict[int, float] | None = None, y: dict[int, int] | None = None) -> str:
        images = np.random.default_rng(0).random((30, 1, 28, 28), dtype=np.float32)
        labels = np.arange(30) % 10
        for row, value in (x or {}).items():
            images[row, 0, 3, 4] = value
        for row, label in (y or {}).items():
            labels[row] = label
        np.savez(tmp_path / "bad.npz", x=images, y=labels)
        return "bad: {load: arrays, path: bad.npz}"

    return write


VALUES = {
    "nan-first": ({0: float("nan")}, "sample '0': nan at [0, 3, 4] is not a finite number"),
    "nan-later": ({25: float("nan")}, "sample '25': nan at [0, 3, 4] is not a finite number"),
    "inf-later": ({25: float("inf")}, "sample '25': inf at [0, 3, 4] is not a finite number"),
    "box-first": ({0: 2.5}, "sample '0': 2.5 at [0, 3, 4] is outside the declared box"),
    "box-later": ({25: -0.5}, "sample '25': -0.5 at [0, 3, 4] is outside the declared box"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_bad_value_costs_the_cells_of_its_dataset_only(
    robeval: Robeval, raw: Raw, arrays: Callable[..., str], tmp_path: Path, case: str
) -> None:
    values, message = VALUES[case]
    path = raw(datasets=(arrays(x=values), SAMPLE))
    ended = robeval("run", str(path), "-o", "out", "--batch-size", "10")
    refused(ended, 7, f"datasets.bad: {message}", "expected values in [0, 1]", "Repair the data")
    _only_the_sound_data_have_numbers(tmp_path / "out")


def _only_the_sound_data_have_numbers(out: Path) -> None:
    assert statuses(out) == {
        ("linear", "bad", "clean"): "failed",
        ("linear", "bad", "noise"): "failed",
        ("linear", "mnist", "clean"): "ok",
        ("linear", "mnist", "noise"): "ok",
    }


@pytest.mark.parametrize(("label", "extra"), [(12, ", num_classes: 10"), (-2, "")])
def test_labels_out_of_range(
    robeval: Robeval,
    raw: Raw,
    arrays: Callable[..., str],
    tmp_path: Path,
    label: int,
    extra: str,
) -> None:
    entry = arrays(y={7: label}).replace("}", extra + "}")
    ended = robeval("run", str(raw(datasets=(entry, SAMPLE))), "-o", "out")
    where = f"dataset 'bad': {tmp_path / 'bad.npz'}: sample 7"
    refused(ended, 7, f"{where} has the label {label}; expected 0 to 9", "1 of 30 labels")
    _only_the_sound_data_have_numbers(tmp_path / "out")


def test_a_missing_data_file(robeval: Robeval, raw: Raw) -> None:
    path = raw(datasets=("bad: {load: arrays, path: data/x.npz}",))
    missing = str(path.parent / "data" / "x.npz")
    refused(robeval("run", str(path)), 7, f"{path}:7:3: error: datasets.bad", missing, "no file")
    nothing_ran()


def test_a_truncated_data_file(
    robeval: Robeval, raw: Raw, arrays: Callable[..., str], tmp_path: Path
) -> None:
    path = raw(datasets=(arrays(), SAMPLE))
    file = tmp_path / "bad.npz"
    file.write_bytes(file.read_bytes()[:1000])
    ended = robeval("run", str(path), "-o", "out")
    refused(ended, 7, "dataset 'bad'", str(file))
    _only_the_sound_data_have_numbers(tmp_path / "out")


def test_no_sample_is_left(robeval: Robeval, raw: Raw) -> None:
    path = raw(datasets=("empty: {load: mnist-sample, skip: 1000, take: 5}",))
    ended = robeval("run", str(path), "-o", "out")
    refused(ended, 5, "datasets.empty: no sample is left", "1000 in the dataset", "skip: 1000")
    # it is the suite that leaves none, so its place is named
    refused(ended, 5, f"{path}:7:")


def test_take_zero_is_refused_at_its_place(robeval: Robeval, raw: Raw) -> None:
    path = raw(datasets=("empty: {load: mnist-sample, take: 0}",))
    where = f"{path}:7:37: error: datasets.empty.take"
    refused(robeval("run", str(path)), 2, where, "expected at least 1, found 0")


# ---------------------------------------------------------------- device


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_where_there_is_none(robeval: Robeval, write_suite: WriteSuite, device: str) -> None:
    ended = robeval("run", str(write_suite(NOISE)), "--device", device)
    refused(ended, 7, f"device '{device}' was asked for", "0 CUDA devices", "--device cpu")
    nothing_ran()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", ""])
def test_an_unknown_device(robeval: Robeval, write_suite: WriteSuite, device: str) -> None:
    # a text that names no device on any machine is a usage error: trying elsewhere will not help
    ended = robeval("run", str(write_suite(NOISE)), "--device", device)
    refused(ended, 2, f"'{device}'", "auto, cpu, cuda, cuda:0")
    nothing_ran()


@pytest.mark.parametrize("size", ["0", "-3", "many", "1.5"])
def test_a_batch_size_that_is_none(robeval: Robeval, write_suite: WriteSuite, size: str) -> None:
    ended = robeval("run", str(write_suite(NOISE)), "--batch-size", size)
    refused(ended, 2, "--batch-size", f"'{size}' is neither auto nor a positive number")


# ---------------------------------------------------------------- where results go


def test_an_output_below_a_file(robeval: Robeval, write_suite: WriteSuite, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    ended = robeval("run", str(write_suite(NOISE)), "-o", "taken/run")
    refused(ended, 7, "cannot write to 'taken/run'", "a part of its path is a file", "-o")
    assert (tmp_path / "taken").read_text() == "mine"


def test_an_output_that_is_a_file(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    ended = robeval("run", str(write_suite(NOISE)), "-o", "taken")
    refused(ended, 2, "'taken'", "holds no run of robeval", "-o")
    assert (tmp_path / "taken").read_text() == "mine"


def test_an_output_that_may_not_be_written(
    robeval: Robeval, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir

    def mkdir(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if "locked" in self.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        real(self, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    ended = robeval("run", str(write_suite(NOISE)), "-o", "locked/run")
    refused(ended, 7, "cannot write to 'locked/run': it is not writable", "-o")


def test_an_output_with_another_run(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(NOISE))
    assert robeval("run", path, "-o", "out").code == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*.*") if file.is_file()}
    ended = robeval("run", path, "-o", "out", "--seed", "1")
    refused(ended, 2, "'out' holds another run", "name a new directory with -o")
    assert before == {file: file.read_bytes() for file in before}


def test_an_output_with_foreign_files(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    ended = robeval("run", str(write_suite(NOISE)), "-o", "out")
    refused(ended, 2, "'out' is not empty and holds no run of robeval", "-o")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.tex"]


# ---------------------------------------------------------------- the disk fills up

GRID = "attacks: {noise: {attack: uniform-noise, norm: linf, eps: [0.1, 0.2]}, f: {attack: fgsm, eps: 0.1}}\n"


def _full_after_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second cell on, tables are cut short and the disk says that it is full."""
    real = records.write_samples
    cells: set[str] = set()

    def write(samples: Samples, path: Path) -> None:
        if cells:
            path.write_bytes(b"PAR1")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(samples, path)
        if "cells" in path.parts:
            cells.add(path.parent.name)

    monkeypatch.setattr(records, "write_samples", write)


@pytest.mark.parametrize("again", [("-o", "out"), ("-o", "out", "--resume")])
def test_a_full_disk_keeps_what_is_finished(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, again: tuple[str, ...]
) -> None:
    path = str(write_suite(GRID))
    with pytest.MonkeyPatch.context() as patch:
        _full_after_one_cell(patch)
        ended = robeval("run", path, "-o", "out")
    refused(ended, 7, "cannot write to 'out': the disk is full", "Finished cells are kept")
    refused(ended, 7, "--resume")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["status"] == "interrupted"
    finished = [cell for cell in load_run(tmp_path / "out").results.values() if cell.status == "ok"]
    assert [result.cell.entry for result in finished] == ["clean"]

    ended = robeval("run", path, *again)
    total = len(load_run(tmp_path / "out").plan.cells)
    refused(ended, 0, f"cells: {total - 1} computed, 1 reused")
    assert set(statuses(tmp_path / "out").values()) == {"ok"}
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_resume_finds_the_run_that_a_full_disk_ended(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(GRID))
    with pytest.MonkeyPatch.context() as patch:
        _full_after_one_cell(patch)
        assert robeval("run", path).code == 7
    ended = robeval("run", path, "--resume")
    refused(ended, 0, "computed, 1 reused")
    assert len(list((tmp_path / "reports" / "small").iterdir())) == 1


def test_a_disk_that_is_full_at_once_leaves_the_directory_usable(
    robeval: Robeval, write_suite: WriteSuite
) -> None:
    path = str(write_suite(NOISE))

    def full(_descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", full)
        refused(robeval("run", path, "-o", "out"), 7, "'out'", "the disk is full")
    refused(robeval("run", path, "-o", "out"), 0, "computed, 0 reused")


def test_a_log_file_that_cannot_be_written(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    ended = robeval("run", str(write_suite(NOISE)), "--log-file", "taken/run.log")
    refused(ended, 7, "taken/run.log", "a part of its path is a file")
