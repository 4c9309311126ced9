"""Figures in the docs are those of the committed results."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("[!.]*.json"))


def table():
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_tables_are_those_of_the_committed_results(path):
    result = json.loads(path.read_text())
    assert (ROOT / "docs" / f"benchmark-{path.stem}.md").read_text() == table().markdown(result)
    readme = (ROOT / "README.md").read_text()
    assert table().readme(result, readme) == readme
    assert all(row["definition"] and row["met"] == _met(row) for row in result["rows"])


def _met(row):
    if not row["bar"] or row["ours"] is None:
        return None
    sign, limit = row["bar"].split()
    return row["ours"] >= float(limit) if sign == ">=" else row["ours"] <= float(limit)


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
