"""The documentation tells what is there: generated pages are current, examples in it are valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from robustbench_lite.contract import COMMON_KEYS
from robustbench_lite.suite.gates import GATE_KEYS, TABLE_GATE_KEYS

if TYPE_CHECKING:
    from tests.conftest import Robeval

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
ANCHOR = re.compile(r"\]\((?!https?://)([^)#]*)#([^)]+)\)")
SUITE = re.compile(r"```yaml\n((?:#[^\n]*\n)?schema: 1\n.*?)```", re.DOTALL)


@pytest.mark.parametrize("tool", ["attack_table.py", "finding_table.py"])
def test_generated_tables_are_current(tool: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / tool), "--check"]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    assert ended.returncode == 0, f"run python tools/{tool}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_somewhere(page: Path) -> None:
    for target, anchor in ANCHOR.findall(page.read_text(encoding="utf-8")):
        assert anchor in anchors(page.parent / target if target else page), (target, anchor)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_whole_suites_in_the_pages_are_valid(page: Path, tmp_path: Path, robeval: Robeval) -> None:
    for number, text in enumerate(SUITE.findall(page.read_text(encoding="utf-8"))):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        ended = robeval("validate", str(path))
        # files that a user brings are not there; everything else must be right
        assert ended.code in {0, 7}, ended.err
        if ended.code == 7:
            assert "there is no file" in ended.err or "cannot be found" in ended.err, ended.err


def test_every_key_of_a_suite_is_on_its_page(robeval: Robeval) -> None:
    page = (ROOT / "docs" / "suite.md").read_text(encoding="utf-8")
    gates = (ROOT / "docs" / "gate-a-release.md").read_text(encoding="utf-8")
    schema = json.loads(robeval("schema", "--no-plugins").out)
    told = {f"`{key}`" for key in schema["properties"]}
    for name, entry in schema["definitions"].items():
        kind = name.partition(".")[0]
        if kind in {"model", "dataset"}:
            told |= {f"`{key}`" for key in entry["properties"] if key != "load"}
            told.add(f"`{name.partition('.')[2]}`")
    told |= {f"`{key}`" for key in COMMON_KEYS["attack"]}
    assert {key for key in told if key not in page} == set()
    written = {f"`{key}" for key in (*GATE_KEYS, *TABLE_GATE_KEYS)}
    assert {key for key in written if key not in gates} == set()


def test_the_plug_in_of_the_guide_works(
    tmp_path: Path, robeval: Robeval, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "write-an-attack.md").read_text(encoding="utf-8")
    (code,) = [
        each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "@hookimpl" in each
    ]
    site = tmp_path / "site"
    info = site / "robeval_guide-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "robeval_guide.py").write_text(code, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robeval-guide\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[robeval]\nguide = robeval_guide\n")
    monkeypatch.syspath_prepend(str(site))
    x = torch.rand((40, 2), generator=torch.Generator().manual_seed(0))
    torch.save({"x": x, "y": (x[:, 1] > x[:, 0]).long()}, tmp_path / "test.pt")
    torch.save(torch.eye(2), tmp_path / "net.pt")
    (entries,) = re.findall(r"```yaml\n(models: .*?)```", page, re.DOTALL)
    rest = "schema: 1\nname: guide\nattacks: {f: {attack: fgsm, norm: linf, eps: 0.1}}\n"
    (tmp_path / "suite.yaml").write_text(rest + entries, encoding="utf-8")
    ended = robeval("run", "suite.yaml", "-o", "out", "-q")
    assert ended.code == 0, ended.out + ended.err
    assert (tmp_path / "out" / "sentence.txt").read_text().startswith("Complete: ")
    table = (tmp_path / "out" / "tables" / "share-left.csv").read_text().splitlines()
    assert table[:2] == ["model,attack,left", "net,clean,1.0"]


def test_every_exit_code_of_the_readme_is_in_the_help(robeval: Robeval) -> None:
    rows = re.findall(
        r"^\| (\d+) \| ", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert rows == [str(code) for code in range(9)]
    shown = robeval("--help").out
    for code in rows:
        assert re.search(rf"^ *{code} ", shown, re.MULTILINE), code
