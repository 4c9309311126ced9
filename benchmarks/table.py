"""The table of the docs, made from a benchmark's results: `python benchmarks/table.py serve`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """One page for a benchmark."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"# Benchmark `{result['bench']}`",
        "",
        f"Written by `edgeward bench {result['bench']} --{result['mode']} --save` on {result['device']}; {versions}.",
        "The machine was idle otherwise (load average at the end: "
        f"{result['load']}). `x` rows are medians of paired, interleaved runs, with the extremes.",
        "",
        "| row | ours | spread | bar | met | baseline |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(row) for row in result["rows"]]
    lines += ["", "## What the rows mean", ""]
    lines += [f"- `{row['id']}`: {row['definition']}.{_note(row)}" for row in result["rows"]]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    ours = "not measured" if row["ours"] is None else f"{row['ours']:.4g} {row['unit']}".strip()
    spread = " to ".join(f"{value:.3g}" for value in row["spread"])
    met = {True: "yes", False: "**no**", None: ""}[row["met"]]
    return "| " + " | ".join((f"`{row['id']}`", ours, spread, row["bar"], met, str(row["baseline"]))) + " |"


def _note(row: dict[str, Any]) -> str:
    return f" {row['note']}." if row["note"] else ""


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    saved = json.loads((here / "results" / f"{sys.argv[1]}.json").read_text())
    (here.parent / "docs" / f"benchmark-{sys.argv[1]}.md").write_text(markdown(saved))
