"""Points on disk: bit for bit, small, and of the samples that they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from robustbench_lite import candidates
from robustbench_lite.builtin.attacks import ddn, pgd, uniform_noise
from robustbench_lite.types import Candidates, Terms
from tests.small_world import Parts, changed, entry, random_linear, simple, table

SHAPES = st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 3))
BITS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = data.draw(SHAPES)
    x, x_adv = (
        data.draw(arrays.arrays(np.uint32, shape, elements=BITS)).view(np.float32) for _ in range(2)
    )
    names = [f"sample/{i} ü" for i in range(shape[0])]
    kept = Candidates(sample_id=np.array(names, dtype=np.str_), x=x, x_adv=x_adv)
    path = tmp_path_factory.getbasetemp() / "points.npz"
    candidates.write(kept, path)
    found = candidates.read(path)
    assert found.sample_id.tolist() == names
    assert found.x.shape == found.x_adv.shape == shape
    assert found.x.tobytes() == x.tobytes()
    assert found.x_adv.tobytes() == x_adv.tobytes()


def test_one_changed_pixel_costs_next_to_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((50, 1, 28, 28)).astype(np.float32)
    x_adv = x.copy()
    x_adv[:, 0, 3, 4] = 1.0
    names = np.array([f"s{i}" for i in range(50)])
    for name, points in (("same", x), ("pixel", x_adv)):
        candidates.write(Candidates(sample_id=names, x=x, x_adv=points), tmp_path / name)
    same, pixel = ((tmp_path / name).stat().st_size for name in ("same", "pixel"))
    assert pixel - same < 0.02 * x.nbytes


def test_room_is_shared_by_the_cells_of_a_run() -> None:
    assert candidates.room(1, (3, 32, 32)) == candidates.CELL_BYTES // (4 * 3072)
    assert candidates.room(38, (1, 28, 28)) > 1000
    many = candidates.room(10_000, (3, 224, 224))
    assert many * 10_000 * 4 * 3 * 224 * 224 <= candidates.RUN_BYTES
    assert candidates.room(0, ()) > 0


def kept(name: str, terms: Terms | None = None, **own: object) -> list[Candidates]:
    """What one attack on a linear model leaves in its parts."""
    specs = {"p": pgd.SPEC, "n": uniform_noise.SPEC, "d": ddn.SPEC}
    attack = entry(name, specs[name], "0.1", "0.3", norm="l2" if name == "d" else "linf", **own)  # type: ignore[arg-type]
    here = changed(simple((specs[name], attack), n=40), self_test=False).world()
    parts = Parts()
    results = here.run(parts=parts, batch_size=7, shard=20, terms=terms)
    found = []
    for cell_id, stored in parts.kept.items():
        cell = results[cell_id].cell
        samples = table(results[cell_id])
        points = candidates.concat([part.candidates for part in stored])
        if points is None:
            continue
        assert cell.attack != "clean"
        place = {each: row for row, each in enumerate(samples.sample_id)}
        rows = [place[each] for each in points.sample_id.tolist()]
        logits = random_linear(0)(torch.from_numpy(points.x_adv))
        assert logits.argmax(dim=1).tolist() == samples.adv_pred[rows].tolist()
        eps = float(cell.eps) if cell.eps else 0.0
        delta = np.abs(points.x_adv.astype(float) - points.x)
        far = delta.max(axis=1) if cell.norm == "linf" else np.sqrt((delta**2).sum(axis=1))
        assert (far <= eps * (1 + 1e-5)).all()
        assert set(rows) >= set(np.flatnonzero(samples.clean_correct & samples.success))
        assert samples.clean_correct[rows].all()
        if cell.role == "control":
            assert samples.success[rows].all()
        else:
            legal = samples.legal if cell.kind == "fixed-budget" else samples.success
            assert set(rows) >= set(np.flatnonzero(samples.clean_correct & legal))
        found.append(points)
    return found


def test_what_is_kept_of_an_attack_a_control_and_a_minimal_norm_attack() -> None:
    assert len(kept("p", steps=5)) == 2
    assert len(kept("n")) <= 2
    assert len(kept("d", steps=100)) >= 1


def test_nothing_is_kept_where_nobody_wants_it() -> None:
    assert kept("p", Terms(keep=False)) == []
