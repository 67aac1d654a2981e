"""The attacks of other libraries behind one signature: (net, x, y, ...) -> x_adv.

Each library is imported where it is used (`pip install -c constraints.txt --no-deps --group peers`)
and called as its documentation shows. All get the module in eval mode with frozen weights: with
weights that ask for gradients, as a module is built, foolbox, ART and FAB in pyautoattack would
compute those too, for nothing. x: [n, c, h, w] in [0, 1] on the CPU, y: int64 [n].
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite import Norm

NAMES = {"linf": "Linf", "l2": "L2"}
PACKAGES = {
    "pyautoattack": "pyautoattack",
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "adversarial-robustness-toolbox",
}
"""Name of the module -> name of the distribution."""


def missing(module: str) -> str:
    """Why the library cannot be compared with; empty if it can."""
    if find_spec(module) is not None:
        return ""
    return f"needs {PACKAGES[module]}: pip install -c constraints.txt --no-deps --group peers"


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Their warnings, and the draws that they make from the global random state, stay inside."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        torch.default_generator.manual_seed(seed)
        state = np.random.get_state(legacy=True)  # noqa: NPY002  (ART draws from it)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
            logging.disable(logging.NOTSET)


def pyautoattack(
    net: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float, *, batch: int, seed: int = 0
) -> Tensor:
    """AutoAttack "standard", the whole cascade."""
    import pyautoattack as library

    with _quiet(seed):
        attack = library.AutoAttack(net, norm=NAMES[norm], eps=eps, seed=seed, version="standard")
        attack.verbose = False
        x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=batch)
    found: Tensor = x_adv
    return found.detach()


def pyautoattack_apgd(
    net: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float, *, seed: int = 0
) -> Tensor:
    """APGD-CE, 100 steps, one start."""
    from pyautoattack.autopgd_base import APGDAttack

    with _quiet(seed):
        attack = APGDAttack(net, norm=NAMES[norm], eps=eps, n_iter=100, seed=seed, device=x.device)
        found: Tensor = attack.perturb(x.clone(), y.clone())
    return found.detach()


def pyautoattack_square(
    net: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float, *, queries: int, seed: int = 0
) -> Tensor:
    """Square with the schedule stretched to its queries."""
    from pyautoattack.square import SquareAttack

    with _quiet(seed):
        attack = SquareAttack(
            net, norm=NAMES[norm], eps=eps, n_queries=queries, seed=seed, device=x.device
        )
        found: Tensor = attack.perturb(x.clone(), y.clone())
    return found.detach()


def torchattacks(
    name: str, net: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0, **own: object
) -> Tensor:
    """The attack of that class name with the arguments `own`."""
    with _quiet(seed):
        import torchattacks as library

        found: Tensor = getattr(library, name)(net, **own)(x, y)
    return found.detach()


def foolbox(
    name: str,
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | None,
    *,
    seed: int = 0,
    **own: object,
) -> Tensor:
    """The attack of that class name at eps; None: a minimal-norm attack, as near as it gets."""
    with _quiet(seed):
        import foolbox as library

        attack = getattr(library.attacks, name)(**own)
        model = library.PyTorchModel(net, bounds=(0, 1), device="cpu")
        raw, clipped, _ = attack(model, x, y, epsilons=eps)
    found: Tensor = raw if eps is None else clipped
    return found.detach()


def art(name: str, net: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0, **own: object) -> Tensor:
    """The evasion attack of that class name with the arguments `own`."""
    with _quiet(seed):
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        with torch.no_grad():
            classes = net(x[:1]).shape[1]
        model = PyTorchClassifier(
            net,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        x_adv = getattr(evasion, name)(model, **own).generate(x.numpy(), y.numpy())
    return torch.from_numpy(np.asarray(x_adv, dtype=np.float32))
