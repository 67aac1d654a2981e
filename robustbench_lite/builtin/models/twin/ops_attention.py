"""Attention and rotary position embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .table import OWN, Kernel, Node, op


@op("ScaledDotProduct", domain=OWN)
def scaled_dot_product(node: Node) -> Kernel:
    """softmax(q k) v, as exporters write it out; k stands transposed, scales are in q and k."""
    del node

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
            return functional.scaled_dot_product_attention(q, k.mT, v, scale=1.0)
        return torch.matmul(torch.softmax(torch.matmul(q, k), -1), v)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The attributes of one Attention node."""

    causal: bool
    q_heads: int
    kv_heads: int
    scale: float | None
    softcap: float
    mode: int
    plain: bool
    before: int
    after: int


def _heads(x: Tensor, heads: int) -> Tensor:
    """[n, length, heads * size] as [n, heads, length, size]; four axes stay."""
    return x if x.dim() == 4 else x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


@op("Attention")
def attention(node: Node) -> Kernel:
    """Scaled dot-product attention with grouped heads, masks, a cache and a soft cap."""
    plan = _Plan(
        causal=bool(node.integer("is_causal")),
        q_heads=node.integer("q_num_heads"),
        kv_heads=node.integer("kv_num_heads"),
        scale=node.number("scale") if "scale" in node.attributes else None,
        softcap=node.number("softcap"),
        mode=node.integer("qk_matmul_output_mode"),
        before=node.integer("left_window_size", -1),
        after=node.integer("right_window_size", -1),
        plain=not any(node.wants(place) for place in (1, 2, 3)),
    )

    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        past_key: Tensor | None = None,
        past_value: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor | tuple[Tensor | None, ...]:
        packed = q.dim() == 3
        q, k, v = _heads(q, plan.q_heads), _heads(k, plan.kv_heads), _heads(v, plan.kv_heads)
        past = 0
        if past_key is not None and past_value is not None:
            past = past_key.shape[2]
            k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
        bias = _bias(plan, q, k, mask, past, lengths)
        keys, values = _repeated(q, k), _repeated(q, v)
        scores: Tensor | None = None
        if plan.plain and not plan.softcap and _every_row_open(bias, lengths):
            made = functional.scaled_dot_product_attention(q, keys, values, bias, scale=plan.scale)
        else:
            made, scores = _written_out(plan, q, keys, values, bias)
        if packed:
            made = made.transpose(1, 2).flatten(2)
        return made if plan.plain else (made, k, v, scores)

    return run


def _repeated(q: Tensor, k: Tensor) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    return k if groups == 1 else k.repeat_interleave(groups, 1)


def _every_row_open(bias: Tensor | None, lengths: Tensor | None) -> bool:
    """Whether no query can be masked against every key (which gives 0, not NaN)."""
    return bias is None and lengths is None


def _bias(
    plan: _Plan, q: Tensor, k: Tensor, mask: Tensor | None, past: int, lengths: Tensor | None
) -> Tensor | None:
    """What is added to the scores: 0 or minus infinity for masks, or a float mask as it is."""
    bias: Tensor | None = None
    if mask is not None:
        missing = k.shape[2] - mask.shape[-1]
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
        bias = (
            functional.pad(mask, (0, missing), value=-math.inf) if missing > 0 else mask.to(q.dtype)
        )
    rows = torch.arange(q.shape[2], device=q.device)[:, None]
    columns = torch.arange(k.shape[2], device=q.device)
    place = rows + past
    if lengths is not None:
        wide = lengths.long().reshape(-1, 1, 1, 1)
        bias = _masked(bias, columns >= wide, q)
        place = rows + wide - q.shape[2]
    if plan.causal:
        bias = _masked(bias, columns > place, q)
    if plan.before >= 0:
        bias = _masked(bias, columns < place - plan.before, q)
    return bias if plan.after < 0 else _masked(bias, columns > place + plan.after, q)


def _masked(bias: Tensor | None, closed: Tensor, q: Tensor) -> Tensor:
    wall = torch.zeros_like(closed, dtype=q.dtype).masked_fill(closed, -math.inf)
    return wall if bias is None else bias + wall


def _written_out(
    plan: _Plan, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The attention step by step, and the scores at the stage that `mode` asks for."""
    scale = plan.scale if plan.scale is not None else 1.0 / math.sqrt(q.shape[-1])
    raw = torch.matmul(q * math.sqrt(scale), (k * math.sqrt(scale)).mT)
    capped = plan.softcap * torch.tanh(raw / plan.softcap) if plan.softcap else raw
    masked = capped if bias is None else capped + bias
    closed = torch.isneginf(masked).all(-1, keepdim=True)
    weights = torch.softmax(masked.masked_fill(closed, 0.0), -1).masked_fill(closed, 0.0)
    stages = (raw, capped, masked, weights)
    return torch.matmul(weights, v), stages[plan.mode]


@op("RotaryEmbedding")
def rotary_embedding(node: Node) -> Kernel:
    """Pairs of features turned by an angle that grows with the position."""
    interleaved, heads = bool(node.integer("interleaved")), node.integer("num_heads")
    limit = node.integer("rotary_embedding_dim")

    def run(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
        packed = x.dim() == 3
        turned = x.reshape(*x.shape[:2], heads, -1) if packed else x.transpose(1, 2)
        width = limit or turned.shape[-1]
        if positions is not None:
            cos, sin = cos[positions.long()], sin[positions.long()]
        cos, sin = cos[..., : width // 2].unsqueeze(2), sin[..., : width // 2].unsqueeze(2)
        head, tail = turned[..., :width], turned[..., width:]
        if interleaved:
            a, b = head[..., 0::2], head[..., 1::2]
        else:
            a, b = head.chunk(2, -1)
        real, imaginary = cos * a - sin * b, sin * a + cos * b
        if interleaved:
            head = torch.stack([real, imaginary], -1).flatten(-2)
        else:
            head = torch.cat([real, imaginary], -1)
        made = torch.cat([head, tail], -1)
        return made.flatten(2) if packed else made.transpose(1, 2)

    return run
