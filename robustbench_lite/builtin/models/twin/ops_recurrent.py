"""Recurrent layers: RNN, GRU and LSTM, written out step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .table import Kernel, Node, op

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]

_DEFAULTS = {
    "RNN": ["Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """The weights of one direction: input, recurrent, their biases and the peepholes."""

    w: Tensor
    r: Tensor
    input_bias: Tensor
    state_bias: Tensor
    peepholes: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """How one direction moves its state on."""

    kind: str
    activations: tuple[Activation, ...]
    clip: float
    reset_after: bool
    coupled: bool

    def squash(self, index: int, x: Tensor) -> Tensor:
        """The activation `index` of x, clipped first where the node asks for it."""
        return self.activations[index](x.clamp(-self.clip, self.clip) if self.clip else x)


def _activation(node: Node, name: str, alpha: float | None, beta: float | None) -> Activation:
    known: dict[str, Activation] = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "softsign": functional.softsign,
        "softplus": functional.softplus,
        "leakyrelu": lambda x: functional.leaky_relu(x, 0.01 if alpha is None else alpha),
        "thresholdedrelu": lambda x: functional.threshold(x, 1.0 if alpha is None else alpha, 0.0),
        "elu": lambda x: functional.elu(x, 1.0 if alpha is None else alpha),
        "affine": lambda x: (1.0 if alpha is None else alpha) * x + (beta or 0.0),
        "scaledtanh": lambda x: (
            (1.0 if alpha is None else alpha) * torch.tanh((1.0 if beta is None else beta) * x)
        ),
        "hardsigmoid": lambda x: torch.clamp(
            (0.2 if alpha is None else alpha) * x + (0.5 if beta is None else beta), 0.0, 1.0
        ),
    }
    if name.lower() not in known:
        raise node.refuse(f"the activation '{name}' is not supported")
    return known[name.lower()]


def _cells(node: Node, directions: int) -> list[_Cell]:
    names = node.texts("activations") or _DEFAULTS[node.op] * directions
    alphas, betas = node.numbers("activation_alpha") or [], node.numbers("activation_beta") or []
    made = [
        _activation(
            node,
            name,
            alphas[i] if i < len(alphas) else None,
            betas[i] if i < len(betas) else None,
        )
        for i, name in enumerate(names)
    ]
    each = len(_DEFAULTS[node.op])
    return [
        _Cell(
            kind=node.op,
            activations=tuple(made[i * each : (i + 1) * each]),
            clip=node.number("clip"),
            reset_after=bool(node.integer("linear_before_reset")),
            coupled=bool(node.integer("input_forget")),
        )
        for i in range(directions)
    ]


def _next(cell: _Cell, weights: _Weights, x: Tensor, state: State) -> State:
    """One step; x is the input already multiplied by its weights."""
    h = state[0]
    if cell.kind == "RNN":
        return (cell.squash(0, x + functional.linear(h, weights.r, weights.state_bias)),)
    if cell.kind == "GRU":
        return (_next_gru(cell, weights, x, h),)
    return _next_lstm(cell, weights, x, state)


def _next_gru(cell: _Cell, weights: _Weights, x: Tensor, h: Tensor) -> Tensor:
    size = h.shape[-1]
    r_zr, r_h = torch.split(weights.r, [2 * size, size])
    b_zr, b_h = torch.split(weights.state_bias, [2 * size, size])
    z, r = cell.squash(0, x[:, : 2 * size] + functional.linear(h, r_zr, b_zr)).chunk(2, -1)
    new = x[:, 2 * size :]
    hidden = (
        r * functional.linear(h, r_h, b_h)
        if cell.reset_after
        else functional.linear(r * h, r_h, b_h)
    )
    return (1 - z) * cell.squash(1, new + hidden) + z * h


def _next_lstm(cell: _Cell, weights: _Weights, x: Tensor, state: State) -> State:
    h, c = state
    i, o, f, g = (x + functional.linear(h, weights.r, weights.state_bias)).chunk(4, -1)
    if weights.peepholes:
        i, f = i + weights.peepholes[0] * c, f + weights.peepholes[2] * c
    i = cell.squash(0, i)
    f = 1 - i if cell.coupled else cell.squash(0, f)
    c = f * c + i * cell.squash(1, g)
    if weights.peepholes:
        o = o + weights.peepholes[1] * c
    return cell.squash(0, o) * cell.squash(2, c), c


def _scan(
    cell: _Cell, weights: _Weights, x: Tensor, state: State, lengths: Tensor | None, back: bool
) -> tuple[Tensor, State]:
    """All steps of one direction: x [t, n, features] to ([t, n, hidden], last state)."""
    steps = x.shape[0]
    prepared = functional.linear(x, weights.w, weights.input_bias)
    made: list[Tensor] = [x] * steps
    for t in range(steps - 1, -1, -1) if back else range(steps):
        after = _next(cell, weights, prepared[t], state)
        if lengths is not None:
            # a sample that has ended keeps its state and gives zeros
            alive = (t < lengths)[:, None]
            state = tuple(torch.where(alive, b, a) for a, b in zip(state, after, strict=True))
            made[t] = torch.where(alive, after[0], torch.zeros_like(after[0]))
        else:
            state = after
            made[t] = state[0]
    return torch.stack(made), state


@op("RNN", "GRU", "LSTM")
def recurrent(node: Node) -> Kernel:
    """A recurrent layer, forwards, backwards or both."""
    direction = node.text("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    cells = _cells(node, directions)
    gates, batch_first = _GATES[node.op], bool(node.integer("layout"))

    def run(
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None = None,
        lengths: Tensor | None = None,
        h0: Tensor | None = None,
        c0: Tensor | None = None,
        p: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        if batch_first:
            x = x.transpose(0, 1)
            h0, c0 = (None if s is None else s.transpose(0, 1) for s in (h0, c0))
        hidden = r.shape[-1]
        zero = x.new_zeros(x.shape[1], hidden)
        outputs, states = [], []
        for d, cell in enumerate(cells):
            bias = x.new_zeros(2 * gates * hidden) if b is None else b[d]
            peepholes = () if p is None else tuple(p[d].chunk(3))
            weights = _Weights(
                w=w[d],
                r=r[d],
                input_bias=bias[: gates * hidden],
                state_bias=bias[gates * hidden :],
                peepholes=peepholes,
            )
            first = (zero if h0 is None else h0[d], zero if c0 is None else c0[d])
            state = first if node.op == "LSTM" else first[:1]
            made, last = _scan(cell, weights, x, state, lengths, d == 1 or direction == "reverse")
            outputs.append(made)
            states.append(last)
        y = torch.stack(outputs, 1)
        ends = [torch.stack(parts) for parts in zip(*states, strict=True)]
        if batch_first:
            return (y.permute(2, 0, 1, 3), *(end.transpose(0, 1) for end in ends))
        return (y, *ends)

    return run
