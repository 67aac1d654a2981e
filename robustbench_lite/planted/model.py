"""A copy of a model that a known point of each sample's ball breaks.

The copy puts a readout behind the logits, which every model has (a torch module, the twin of an
ONNX file, a file that gives scores alone). So all that an attack has to get through stays in its
way: a quantiser, NaN gradients, the saturation of logits multiplied by 1,000, rounded
probabilities. For a sample x with label y, a rival class r and a threshold t > 0,

    margin(x') = M (1 - gain(x') / t),    gain(x') = (z_r - z_y)(x') - (z_r - z_y)(x),

half of it added to y and half taken from r: x keeps its label, by M, and x' is adversarial exactly
where its gain exceeds t. The other classes stand still, as far below y as they are at x and at
least 1.25 M: never reached, but there for a ratio of logits to divide by. One hyperplane in two
logits is enough, because every sample has its own; the number of classes stays k.

`witness` chooses r, M and t. For attacks on decisions r is whichever other class is ahead, so that
whatever the model itself misclassifies is adversarial on the copy too: such an attack has to start
somewhere. So it is where the other classes are tied, as in one-hot outputs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import losses
from ..access import score
from ..errors import AccessDenied
from ..seen import Seen
from ..types import Access, Box, Classifier, Evaluated, LoadedModel, Loss, covers

ANY = -1
"""The rival that stands for whichever other class has the largest logit."""


def rivals_of(logits: Tensor, y: Tensor, rivals: Tensor) -> Tensor:
    """The classes that `rivals` (int64 [n, m], may hold ANY) are for logits [n, k]."""
    others = logits.scatter(1, y[:, None], float("-inf"))
    return torch.where(rivals == ANY, others.argmax(dim=1, keepdim=True), rivals)


def ahead(logits: Tensor, y: Tensor, rivals: Tensor) -> Tensor:
    """How far the rivals are ahead of y (int64 [n]): [n, m]."""
    return logits.gather(1, rivals_of(logits, y, rivals)) - logits.gather(1, y[:, None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """Per sample, how the logits of the copy follow from those of the model.

    `x`: clean inputs [n, *shape]. `y`, `rival`: int64 [n]. `start`: z_r - z_y at x, [n]. `margin`:
    of the copy at x, [n]. `slope`: of that margin over the gain, [n]. `others`: logits [n, k] of
    the other classes.
    """

    x: Tensor
    y: Tensor
    rival: Tensor
    start: Tensor
    margin: Tensor
    slope: Tensor
    others: Tensor

    def rows(self, index: Tensor) -> Readout:
        """The samples `index` (int64 [m])."""
        return Readout(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})

    def of(self, x: Tensor) -> Readout:
        """The samples that the rows of x [m, *shape] belong to.

        n rows are the samples in order; any other number comes from a caller who could not say,
        and each row belongs to the nearest clean input.
        """
        if x.shape[0] == self.x.shape[0]:
            return self
        gaps = torch.cdist(x.detach().flatten(1), self.x.flatten(1))
        return self.rows(gaps.argmin(dim=1))

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits [n, k] of the copy; a logit that is not finite stays what it is."""
        y, rival = self.y[:, None], rivals_of(logits, self.y, self.rival[:, None])
        gain = ahead(logits, self.y, rival)[:, 0] - self.start
        half = ((self.margin - self.slope * gain) / 2)[:, None].to(logits.dtype)
        others = torch.where(logits.isfinite(), self.others.to(logits.dtype), logits)
        return others.scatter(1, y, half).scatter(1, rival, -half)


class PlantedModule(nn.Module):
    """A module with the readout behind it."""

    def __init__(self, module: nn.Module, readout: Readout) -> None:
        super().__init__()
        self.module = module
        self._readout = readout

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, k] of the copy, with a graph when x needs one."""
        return self._readout.of(x)(self.module(x))


@dataclass(frozen=True, slots=True)
class PlantedClassifier:
    """The copy as an attack with `access` sees it: a `Classifier`.

    `model`: the original, which counts and must grant scores. `seen`: told of every point, as it is
    in a cell. `index`: rows of what the attack was given that this view covers (None: all).
    """

    model: Classifier
    readout: Readout
    access: Access
    seen: Seen
    index: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return self.model.num_classes

    @property
    def box(self) -> Box:
        """Range of every input component."""
        return self.model.box

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.model.shape

    @property
    def device(self) -> torch.device:
        """Where inputs are expected."""
        return self.model.device

    def logits(self, x: Tensor) -> Tensor:
        """Scores [n, k] without a graph."""
        return self._scores(x, "score")

    def decide(self, x: Tensor) -> Tensor:
        """Predicted classes, int64 [n]."""
        return self._scores(x, "decision").argmax(dim=1)

    def _scores(self, x: Tensor, needed: Access) -> Tensor:
        if not covers(self.access, needed):
            raise AccessDenied(
                f"the attack asked for {needed} access and its spec declares '{self.access}'"
            )
        scores = self.readout.of(x)(self.model.logits(x))
        self.seen.point(self.index, x, scores)
        return scores

    def gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Tensor:
        """Gradient of the per-sample loss, [n, *shape]."""
        return self.value_and_gradient(x, y, loss).gradient

    def value_and_gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Evaluated:
        """Loss, gradient and logits of one pass."""
        readout, function = self.readout.of(x), losses.resolve(loss)

        def planted(logits: Tensor, labels: Tensor) -> Tensor:
            return function(readout(logits), labels)

        result = self.model.value_and_gradient(x, y, planted)
        result = result._replace(logits=readout(result.logits))
        self.seen.point(self.index, x, result.logits)
        return result

    def averaged(self, draws: int) -> PlantedClassifier:
        """The same model, each answer the mean over `draws` passes."""
        return dataclasses.replace(self, model=self.model.averaged(draws))

    def rows(self, index: Tensor) -> PlantedClassifier:
        """The same model for the samples `index` (int64 [m], may repeat) of the batch."""
        return dataclasses.replace(
            self,
            model=self.model.rows(index),
            readout=self.readout.rows(index),
            index=index if self.index is None else self.index[index],
        )

    def module(self) -> nn.Module:
        """A private copy as an `nn.Module`."""
        return PlantedModule(self.model.module(), self.readout).eval()


def planted_copy(model: LoadedModel, readout: Readout, draws: int = 1) -> LoadedModel:
    """The copy as a loader would return it, to judge with; `model` is not touched.

    `draws`: passes averaged for every answer, of a model whose output is random.
    """

    def predict(x: Tensor) -> Tensor:
        own = readout.of(x)
        return torch.stack([own(score(model, x)) for _ in range(draws)]).mean(dim=0)

    module = model.differentiable
    return dataclasses.replace(
        model,
        predict=predict,
        differentiable=None if module is None else PlantedModule(module, readout).eval(),
        output="logits",
        verify=None,
    )
