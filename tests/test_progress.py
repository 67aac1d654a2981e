"""Progress: a line per cell, a heartbeat in long ones, bars on a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from robustbench_lite.builtin.attacks import fgsm
from robustbench_lite.progress import Bars, Lines, Silent, describe, display, line
from robustbench_lite.types import CellResult, Observer
from tests.finished_run import cell
from tests.small_world import entry, failing_result, simple

FGSM = cell("fgsm", "8/255")
CLEAN = cell("clean", None, norm=None)


def finished() -> Iterator[CellResult]:
    yield from simple((fgsm.SPEC, entry("a", fgsm.SPEC, "0.1"))).world().stream()


def test_a_cell_in_a_few_words() -> None:
    assert describe(FGSM) == "candidate on test: fgsm linf 8/255"
    assert describe(CLEAN) == "candidate on test: clean"
    transfer = cell("fgsm", "0.1", source="surrogate")
    assert describe(transfer) == "candidate on test: fgsm linf 0.1 from surrogate"


def test_a_finished_cell_in_one_line() -> None:
    clean, attacked = finished()
    assert line(clean).startswith("m on d: clean: ok, 90.0 % of 10 robust, ")
    assert line(clean).endswith(" s")
    assert attacked.samples is not None
    robust = (attacked.samples.clean_correct & ~attacked.samples.success).mean()
    assert line(attacked).startswith(f"m on d: a linf 0.1: ok, {100 * robust:.1f} % of 10 robust, ")
    failed = failing_result(FGSM, "the attack gave up")
    assert line(failed) == "candidate on test: fgsm linf 8/255: failed (the attack gave up)"


def test_every_finished_cell_is_numbered_and_flushed() -> None:
    stream = io.StringIO()
    with Lines(stream) as lines:
        for result in finished():
            lines.finished(result)
    written = stream.getvalue().splitlines()
    assert [text[:4] for text in written] == ["[1] ", "[2] "]


def test_the_heartbeat_waits_its_time_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("robustbench_lite.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = Lines(stream)

    def after(seconds: float) -> int:
        now[0] += seconds
        lines.advanced(FGSM, 250, 1000, 200)
        return len(stream.getvalue().splitlines())

    assert after(29.9) == 0
    assert after(0.2) == 1
    assert stream.getvalue() == (
        "... candidate on test: fgsm linf 8/255: 250 of 1000 samples, 200 robust\n"
    )
    assert after(29.0) == 1
    assert after(1.1) == 2
    lines.finished(failing_result(FGSM, "no"))
    assert after(29.0) == 3  # a finished cell is a sign of life too


def test_silence_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Silent() as silent:
        silent.advanced(FGSM, 1, 2, 1)
        silent.finished(failing_result(FGSM, "no"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_bars_go_to_stderr_and_leave_the_lines_of_finished_cells(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bars = Bars()
    with bars:
        bars.advanced(FGSM, 0, 10, 0)
        bars.advanced(FGSM, 5, 10, 4)
        bars.finished(failing_result(cell("[bold]name[/bold]", "0.1"), "no [red]reason"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "[bold]name[/bold] linf 0.1: failed (no [red]reason)" in captured.err.replace(
        "\n", " "
    ).replace("  ", " ")


def test_bars_end_when_the_run_raises() -> None:
    with pytest.raises(KeyboardInterrupt), Bars():
        raise KeyboardInterrupt


def test_the_display_fits_the_stream() -> None:
    stream = io.StringIO()
    kinds: list[Observer] = [
        display(stream, quiet=quiet, terminal=terminal)
        for quiet in (True, False)
        for terminal in (True, False)
    ]
    assert [type(kind) for kind in kinds] == [Silent, Silent, Bars, Lines]
