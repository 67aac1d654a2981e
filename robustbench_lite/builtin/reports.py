"""The reporters that ship with robeval: HTML, Markdown, JUnit, a model card and the tables."""

from __future__ import annotations

from collections.abc import Iterable

from robustbench_lite import ReporterSpec, hookimpl


@hookimpl
def robeval_reporters() -> Iterable[ReporterSpec]:
    """What a run can write; each is imported only when one writes it."""
    return [
        ReporterSpec(
            name="html",
            implementation="robustbench_lite.report.html:write",
            summary="the whole report as one offline file",
            files=("report.html",),
        ),
        ReporterSpec(
            name="markdown",
            implementation="robustbench_lite.report.markdown:write",
            summary="verdict, gates and table for a pull request or a CI summary",
            files=("summary.md",),
        ),
        ReporterSpec(
            name="junit",
            implementation="robustbench_lite.report.junit:write",
            summary="gates and cells as test cases, for the test page of a CI server",
            files=("junit.xml",),
        ),
        ReporterSpec(
            name="model-card",
            implementation="robustbench_lite.report.model_card:write",
            summary="the valid numbers as Hugging Face's model-index",
            files=("model-card.yaml", "model-cards"),
        ),
        ReporterSpec(
            name="csv",
            implementation="robustbench_lite.report.tables:write_csv",
            summary="one row per cell, and every metric in long form",
            files=("tables/cells.csv", "tables/metrics.csv"),
        ),
        ReporterSpec(
            name="parquet",
            implementation="robustbench_lite.report.tables:write_parquet",
            summary="one row per sample and cell",
            files=("tables/samples.parquet",),
        ),
    ]
