"""The loader `trained`: a model that a recipe trains, or its weights from the cache."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robustbench_lite import Bench, Json, LoadedModel, ModelError, Output, Places

from .. import nets
from ..nets.options import independent
from . import augment, costs, loop
from .kept import Folder
from .options import TrainedParams

CACHE = "trained"


def load(
    params: TrainedParams,
    *,
    places: Places,
    device: str,
    threads: int,  # noqa: ARG001  (torch runs with the threads that the run has set)
    bench: Bench,
) -> LoadedModel:
    """The trained network in eval mode on `device`; training it first if nobody has.

    The finished weights and every epoch until then are kept below the cache by content id. Raises
    ModelError where data and architecture do not fit, or where the training diverges.
    """
    data = bench.dataset(params.on)
    classes = len(data.classes)
    augment.check(params.augment, data.shape)
    own = independent(params.arch)

    def build() -> nn.Module:
        try:
            return nets.build(params.arch, data.shape, classes)
        except (ValueError, RuntimeError) as problem:
            raise ModelError(f"arch {params.arch.name}: {problem}") from problem

    folder = Folder(places.cache / CACHE / bench.content)
    kept = folder.finished()
    if kept is None:
        if params.hold_out >= len(data.labels):
            raise ModelError(
                f"hold_out: {params.hold_out} of {len(data.labels)} samples of '{params.on}' leave"
                " nothing to train on"
            )
        x = data.read(range(len(data.labels)))
        job = loop.Job(
            name=f"{params.arch.name}, {params.recipe.name} (seed {params.seed})",
            options=params,
            build=build,
            data=loop.Labelled(x.to(device), data.labels.to(device)),
            box=data.box,
            cost=costs.per_class if own else costs.cross_entropy,
            independent=own,
            folder=folder,
        )
        weights, record = loop.train(job)
        kept = weights, folder.finish(weights, {**record, **_words(params, device)})
    net = build()
    net.load_state_dict(kept[0])
    return as_model(net, data.shape, classes, device, own=own, facts=_facts(net, kept[1]))


def as_model(
    net: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    device: str,
    *,
    own: bool,
    facts: Mapping[str, Json],
) -> LoadedModel:
    """A network as the run sees it. `own`: each class is a yes or no of its own."""
    net.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        scores: Tensor = net(x)
        return scores.sigmoid() if own else scores

    output: Output = "independent-probabilities" if own else "logits"
    return LoadedModel(
        predict=predict,
        differentiable=net,
        num_classes=classes,
        input_shape=shape,
        output=output,
        device=device,
        provider="torch",
        facts=facts,
    )


def _words(params: TrainedParams, device: str) -> dict[str, Json]:
    """What a record says beside the course: threads and device decide the last bits."""
    return {
        "arch": params.arch.name,
        "recipe": params.recipe.name,
        "seed": params.seed,
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _facts(net: nn.Module, record: Mapping[str, Json]) -> dict[str, Json]:
    shown = {name: value for name, value in record.items() if name != "history"}
    return {**shown, "parameters": sum(value.numel() for value in net.parameters())}
