"""The loader `ensemble`: several models of the suite that answer together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from robustbench_lite import LoadedModel, ModelError, ModelRef, ModelSpec, Params, Places

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustbench_lite import Bench


class EnsembleParams(Params):
    """`of`: the members, models of the suite that give gradients."""

    of: Annotated[tuple[ModelRef, ...], Field(min_length=1)]


def load(
    params: EnsembleParams,
    *,
    places: Places,  # noqa: ARG001
    device: str,
    threads: int,  # noqa: ARG001
    bench: Bench,
) -> LoadedModel:
    """The class with the largest mean probability over the members.

    Gradients are of the scores z_k = mean of log p_k: -z_y is the mean loss of the members, which
    the attack `fgsm-own-loss` with `loss: negative-score` raises. Raises ModelError for members
    without gradients, and for members that do not know the same classes.
    """
    import torch

    members = [bench.model(name) for name in params.of]
    for name, member in zip(params.of, members, strict=True):
        if member.differentiable is None or member.output == "independent-probabilities":
            raise ModelError(f"of: '{name}' gives no gradients of a softmax")
        if member.num_classes != members[0].num_classes:
            raise ModelError(
                f"of: '{name}' knows {member.num_classes} classes, '{params.of[0]}'"
                f" {members[0].num_classes}"
            )
    nets = [member.differentiable for member in members if member.differentiable is not None]

    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        return torch.stack([net(x).softmax(dim=1) for net in nets]).mean(dim=0)

    return LoadedModel(
        predict=predict,
        differentiable=_mean_log(nets),
        num_classes=members[0].num_classes,
        input_shape=members[0].input_shape,
        output="probabilities",
        device=device,
        provider="torch",
        facts={"members": list(params.of)},
    )


def _mean_log(nets: list[torch.nn.Module]) -> torch.nn.Module:
    import torch

    class MeanLog(torch.nn.Module):
        """Mean log-probability of the members, [n, k]."""

        def __init__(self) -> None:
            super().__init__()
            self.members = torch.nn.ModuleList(nets)

        def forward(self, x: Tensor) -> Tensor:
            """[n, *shape] -> [n, k]."""
            logs = [member(x).log_softmax(dim=1) for member in self.members]
            return torch.stack(logs).mean(dim=0)

    return MeanLog().eval()


SPEC = ModelSpec(
    name="ensemble",
    implementation=load,
    summary="several models of the suite: the largest mean probability decides",
    params=EnsembleParams,
)
