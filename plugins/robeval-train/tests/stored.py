"""A bench of plain objects, and a finished run written by hand: what an analysis is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robeval_train.training.load import as_model
from robustbench_lite import Box, DataSource, LoadedModel, StoredRun
from robustbench_lite.records import write_samples
from robustbench_lite.types import Cell, CellResult, Plan, Samples


def source(x: Tensor, y: Tensor, classes: int) -> DataSource:
    """Tensors as a dataset."""
    return DataSource(
        ids=[f"s{row}" for row in range(len(y))],
        labels=y,
        read=lambda rows: x[list(rows)],
        shape=tuple(x.shape[1:]),
        box=Box(),
        classes=tuple(str(k) for k in range(classes)),
    )


@dataclass
class Table:
    """A `Bench` over models and datasets in memory."""

    models: Mapping[str, LoadedModel] = field(default_factory=dict)
    datasets: Mapping[str, DataSource] = field(default_factory=dict)
    content: str = "id"
    device: str = "cpu"

    def dataset(self, name: str) -> DataSource:
        return self.datasets[name]

    def model(self, name: str) -> LoadedModel:
        return self.models[name]


def linear(weight: Tensor, bias: Tensor | None = None, *, own: bool = False) -> LoadedModel:
    """Scores weight @ x + bias of flat samples."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    net = nn.Sequential(nn.Flatten(), layer)
    return as_model(net, (weight.shape[1],), len(weight), "cpu", own=own, facts={})


def run_with(path: Path, cells: Mapping[tuple[str, str], tuple[list[int], list[int]]]) -> StoredRun:
    """A run with one cell per (entry, model): the labels and the classes named on x_adv."""
    planned = [_cell(entry, model) for entry, model in cells]
    for cell in planned:
        label, adv = cells[cell.entry, cell.model]
        folder = path / "cells" / cell.id
        folder.mkdir(parents=True)
        write_samples(_samples(label, adv), folder / "samples.parquet")
    plan = Plan(suite="s", seed=0, models={}, datasets={}, cells=tuple(planned))
    results: dict[str, CellResult] = {}
    return StoredRun(path=path, manifest={}, plan=plan, suite_text="", results=results)


def _cell(entry: str, model: str) -> Cell:
    return Cell(
        id=f"{entry}-{model}",
        model=model,
        dataset="test",
        entry=entry,
        attack=entry,
        source=model,
        role="attack",
        kind="fixed-budget",
        effort="single-step",
        norm="linf",
        eps=None,
        target=None,
        repeats=1,
        params={},
        carried=(),
        implicit=False,
        skip=None,
        cost=None,
    )


def _samples(label: list[int], adv: list[int]) -> Samples:
    n = len(label)
    y, pred = np.array(label, dtype=np.int64), np.array(adv, dtype=np.int64)
    names = np.array([f"s{row}" for row in range(n)], dtype=object)
    zeros, ones = np.zeros(n), np.ones(n, dtype=bool)
    return Samples(
        sample_id=names,
        sample_hash=names,
        label=y,
        clean_pred=pred,
        clean_confidence=np.linspace(0, 1, n, dtype=np.float32),
        adv_pred=pred,
        adv_confidence=np.full(n, 0.5, dtype=np.float32),
        clean_correct=pred == y,
        adv_correct=pred == y,
        success=pred != y,
        legal=ones,
        l0=zeros,
        l1=zeros,
        l2=zeros,
        linf=zeros,
        survives_uint8=ones,
        pixel=np.full(n, -1, dtype=np.int64),
        queries=zeros,
        gradients=zeros,
        status=np.array(["ok"] * n, dtype=object),
    )
