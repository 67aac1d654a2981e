"""The model as an attack may see it: counts every pass and refuses what was not granted.

It remembers the clean batch's logits and gradients, so that an eps grid of a single-step attack
costs one backward pass, and notes gradients that are NaN or exactly zero.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, nn

from . import losses
from .adaptive import straight_through
from .errors import AccessDenied
from .judge import to_logits
from .seen import Seen
from .types import Access, Box, Evaluated, LoadedModel, Loss, covers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class BatchMemory:
    """Clean logits and gradients of one batch on one model, each computed at most once."""

    def __init__(self, model: LoadedModel, x: Tensor, y: Tensor) -> None:
        self.model = model
        self.x = x
        self.y = y
        self._logits: Tensor | None = None
        self._evaluated: dict[tuple[str, tuple[str, ...]], Evaluated] = {}

    def logits(self) -> Tensor:
        """Clean scores [n, k] of the artefact."""
        if self._logits is None:
            self._logits = score(self.model, self.x)
        return self._logits

    def evaluated(self, loss: str, bpda: tuple[str, ...] = ()) -> Evaluated:
        """Loss, gradient and logits at the clean batch, for its true labels."""
        key = (loss, bpda)
        if key not in self._evaluated:
            self._evaluated[key] = differentiate(self.model, self.x, self.y, loss, bpda)
        return self._evaluated[key]


OWN_LOSS = "a loss of its own"
"""What a loss is called that an attack computes from the network's outputs."""


class Tally:
    """Passes and gradient faults per row of a batch, kept on the device until they are read.

    `queries`, `gradients`: float64 [n]. `faults`: by the name of every loss that was tried, how
    often the row's gradient was not finite and how often exactly zero, float64 [2, n].
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.queries = torch.zeros(n, dtype=torch.float64, device=device)
        self.gradients = torch.zeros(n, dtype=torch.float64, device=device)
        self.faults: dict[str, Tensor] = {}

    @property
    def broken_gradient(self) -> Tensor:
        """Rows with a NaN or Inf gradient: bool [n]."""
        return self._faulty()[0]

    @property
    def zero_gradient(self) -> Tensor:
        """Rows whose gradient was exactly zero at least once: bool [n]."""
        return self._faulty()[1]

    def _faulty(self) -> Tensor:
        counts = [torch.zeros_like(self.queries).expand(2, -1), *self.faults.values()]
        return torch.stack(counts).amax(dim=0) > 0

    def add(self, counter: Tensor, index: Tensor | None, passes: int) -> None:
        """Add one pass for each of `passes` rows; rows that cannot be attributed are shared out."""
        n = counter.shape[0]
        if index is not None and index.shape[0] == passes:
            counter.index_add_(0, index, torch.ones_like(index, dtype=counter.dtype))
        elif index is None and passes == n:
            counter += 1
        elif n:
            counter += passes / n

    def note(self, index: Tensor | None, gradient: Tensor, loss: str = OWN_LOSS) -> None:
        """Remember rows whose gradient is not finite or exactly zero; all, if none can be named."""
        if loss not in self.faults:
            self.faults[loss] = self.queries.new_zeros((2, self.queries.shape[0]))
        flat = gradient.detach().flatten(1)
        if flat.device.type == "cpu" and _all_sound(flat):
            return  # nothing to mark; on a GPU asking would make the host wait
        size = flat.abs().sum(dim=1)
        broken, zero = self.faults[loss]
        self._mark(broken, index, ~size.isfinite())
        self._mark(zero, index, size == 0)

    @staticmethod
    def _mark(times: Tensor, index: Tensor | None, fault: Tensor) -> None:
        if index is None and fault.shape == times.shape:
            times += fault
        elif index is not None and index.shape == fault.shape:  # a row may stand there twice
            times.index_add_(0, index, fault.to(times.dtype))
        else:  # nobody knows whose gradient it was
            times += fault.any()


class Granted:
    """A `Classifier` over a loaded model, for the rows `index` of a batch."""

    def __init__(
        self,
        memory: BatchMemory,
        box: Box,
        access: Access,
        tally: Tally,
        *,
        clean: Tensor | None = None,
        base: Tensor | None = None,
        index: Tensor | None = None,
        seen: Seen | None = None,
        draws: int = 1,
        bpda: tuple[str, ...] = (),
    ) -> None:
        self._memory = memory
        self._box = box
        self._access: Access = access
        self._tally = tally
        self._clean = clean
        self._base = base  # rows of the memory's batch that the attack was given
        self._index = index  # rows of what the attack was given that this view covers
        self._seen = seen
        self._draws = draws
        self._bpda = bpda

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return self._memory.model.num_classes

    @property
    def box(self) -> Box:
        """Range of every input component."""
        return self._box

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self._memory.x.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where inputs are expected."""
        return self._memory.x.device

    def logits(self, x: Tensor) -> Tensor:
        """Scores [n, k] without a graph."""
        self._need("score")
        return self._scores(x)

    def decide(self, x: Tensor) -> Tensor:
        """Predicted classes, int64 [n]."""
        self._need("decision")
        return self._scores(x).argmax(dim=1)

    def _scores(self, x: Tensor) -> Tensor:
        self._count(self._tally.queries, x)
        if self._draws == 1 and self._is_clean(x):
            scores = self._of_memory(self._memory.logits())
        else:
            looks = [score(self._memory.model, x.detach()) for _ in range(self._draws)]
            scores = _mean(looks)
        if self._seen is not None:
            self._seen.point(self._index, x, scores)
        return scores

    def gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Tensor:
        """Gradient of the per-sample loss, [n, *shape]."""
        return self.value_and_gradient(x, y, loss).gradient

    def value_and_gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Evaluated:
        """Loss, gradient and logits of one pass; the loss is summed for the backward pass."""
        self._need("gradient")
        self._count(self._tally.queries, x)
        self._count(self._tally.gradients, x)
        memory = self._memory
        if self._draws > 1:
            looks = [
                differentiate(memory.model, x, y, loss, self._bpda) for _ in range(self._draws)
            ]
            result = Evaluated(*(_mean(parts) for parts in zip(*looks, strict=True)))
        elif isinstance(loss, str) and self._is_clean(x) and self._has_clean_labels(y):
            kept = memory.evaluated(loss, self._bpda)
            result = Evaluated(*(self._of_memory(part) for part in kept))
        else:
            result = differentiate(memory.model, x, y, loss, self._bpda)
        self._tally.note(self._index, result.gradient, _title_of(loss))
        if self._seen is not None:
            self._seen.point(self._index, x, result.logits)
            self._seen.loss(self._index, _name_of(loss), result.value)
        return result

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Refused, with what to ask instead."""
        raise TypeError("model(x) is not counted: ask model.logits(x), or model.module() first")

    def averaged(self, draws: int) -> Granted:
        """The same model, each answer the mean over `draws` passes, all of them counted."""
        return self._view(self._index, self._draws * draws)

    def rows(self, index: Tensor) -> Granted:
        """The same model for some rows of the batch (repeats allowed)."""
        return self._view(index if self._index is None else self._index[index], self._draws)

    def _view(self, index: Tensor | None, draws: int) -> Granted:
        return Granted(
            self._memory,
            self._box,
            self._access,
            self._tally,
            index=index,
            seen=self._seen,
            draws=draws,
            bpda=self._bpda,
        )

    def _count(self, counter: Tensor, x: Tensor) -> None:
        for _ in range(self._draws):
            self._tally.add(counter, self._index, x.shape[0])

    def module(self) -> nn.Module:
        """A private, counted copy as an `nn.Module`; nothing done to it reaches the artefact."""
        self._need("gradient")
        differentiable = self._memory.model.differentiable
        assert differentiable is not None
        return CountedModule(
            copy.deepcopy(differentiable),
            self._count_forward,
            self._count_backward,
            draws=self._draws,
            bpda=self._bpda,
        ).eval()

    def _count_forward(self, passes: int) -> None:
        self._tally.add(self._tally.queries, self._index, passes)

    def _count_backward(self, gradient: Tensor) -> None:
        self._tally.add(self._tally.gradients, self._index, gradient.shape[0])
        self._tally.note(self._index, gradient)

    def _need(self, needed: Access) -> None:
        if not covers(self._access, needed):
            raise AccessDenied(
                f"the attack asked for {needed} access and its spec declares '{self._access}'"
            )
        if needed == "gradient" and self._memory.model.differentiable is None:
            raise AccessDenied("the attack asked for gradients and this model has none")

    def _is_clean(self, x: Tensor) -> bool:
        clean = self._clean
        return (
            clean is not None
            and x.data_ptr() == clean.data_ptr()
            and x.shape == clean.shape
            and torch.equal(x, self._of_memory(self._memory.x))
        )

    def _has_clean_labels(self, y: Tensor) -> bool:
        return torch.equal(y, self._of_memory(self._memory.y))

    def _of_memory(self, values: Tensor) -> Tensor:
        return values.clone() if self._base is None else values[self._base]


class CountedModule(nn.Module):
    """An `nn.Module` that reports its forward samples and the gradients that reach its input."""

    def __init__(
        self,
        module: nn.Module,
        forwards: Callable[[int], None],
        backwards: Callable[[Tensor], None],
        *,
        draws: int = 1,
        bpda: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.module = module
        self._forwards = forwards
        self._backwards = backwards
        self._draws = draws
        self._bpda = bpda

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, k] of the copy, with a graph when x needs one."""
        with straight_through(self.module, self._bpda):
            return _mean([self._once(x) for _ in range(self._draws)])

    def _once(self, x: Tensor) -> Tensor:
        self._forwards(x.shape[0])
        if x.requires_grad:
            x = x.view_as(x)  # a hook on the caller's own tensor would outlive this pass
            x.register_hook(self._backwards)  # type: ignore[no-untyped-call]
        logits: Tensor = self.module(x)
        return logits


def score(model: LoadedModel, x: Tensor) -> Tensor:
    """Scores [n, k] of the artefact, without a graph."""
    given = x if model.leaves_input else x.clone()  # a network may work in place
    output = model.predict(given).detach().float()
    return to_logits(output, model.output).clone()  # and may reuse its output


def _mean(values: Sequence[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else sum(values[1:], values[0]) / len(values)


def _all_sound(gradient: Tensor) -> bool:
    """Whether every row of the gradient [n, d] is finite and not zero; when in doubt, False.

    The l2 norm takes half the time of a sum of absolute values, and may under- or overflow.
    """
    if not gradient.numel():
        return False
    least, most = torch.linalg.vector_norm(gradient, dim=1).aminmax()
    return bool(least > 0) and bool(most < math.inf)


def _name_of(loss: Loss) -> str:
    """Looks at the same loss go by one name."""
    return loss if isinstance(loss, str) else getattr(loss, "__qualname__", type(loss).__name__)


def _title_of(loss: Loss) -> str:
    """The name that a reader knows: a function's, or that of the one which made it."""
    return _name_of(loss).partition(".<locals>")[0].replace("_", "-")


def differentiate(
    model: LoadedModel, x: Tensor, y: Tensor, loss: Loss, bpda: tuple[str, ...] = ()
) -> Evaluated:
    """One forward and backward pass with respect to the input alone.

    `bpda`: steps of the model whose gradient is the identity's. A loss that does not depend on the
    input (a cut graph) has a zero gradient.
    """
    assert model.differentiable is not None
    function = losses.resolve(loss)
    with torch.enable_grad(), straight_through(model.differentiable, bpda):
        leaf = x.detach().clone().requires_grad_(True)
        logits = model.differentiable(leaf)
        value = function(logits, y)
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    if gradient is None:
        gradient = torch.zeros_like(leaf)
    return Evaluated(value.detach(), gradient.detach(), logits.detach())
