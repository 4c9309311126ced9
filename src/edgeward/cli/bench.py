"""`edgeward bench`: run a benchmark of the checkout and print its table.

edgeward bench serve --quick
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from edgeward.cli.output import print_json, show_table
from edgeward.errors import ConfigError, nearest

__all__ = ["bench"]


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark: a folder of benchmarks/.")],
    full: Annotated[bool, typer.Option("--full/--quick", help="The real thing, or a minute's worth.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Keep the results and write the table of the docs.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure a system against its baselines."""
    folder = _benchmarks()
    known = sorted(path.parent.name for path in folder.glob("*/bench.py"))
    if name not in known:
        raise ConfigError(f"no benchmark {name!r}; {nearest(name, known)}")
    result = _load(folder, name, "bench.py").run(full=full)
    if save:
        (folder / "results").mkdir(exist_ok=True)
        (folder / "results" / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        _load(folder, "", "table.py").write(result, folder.parent)
    if json_:
        print_json(result)
        return
    show_table(
        f"{name} ({result['mode']}) on {result['device']}",
        ["what", "baseline", "ours", "unit", "bar", "met"],
        [
            [row["id"], row["baseline"], f"{row['ours']:.4g}" if row["ours"] is not None else "–"]
            + [row["unit"], row["bar"], {True: "yes", False: "NO", None: ""}[row["met"]]]
            for row in result["rows"]
        ],
    )
    for row in result["rows"]:
        if row["note"]:
            typer.echo(f"{row['id']}: {row['note']}")


def _benchmarks() -> Path:
    """The benchmarks folder of the checkout that this package is installed from, or of the current folder."""
    for base in (Path(__file__).resolve().parents[3], Path.cwd()):
        if (base / "benchmarks").is_dir():
            return base / "benchmarks"
    raise ConfigError("benchmarks are part of the source checkout; run this command from inside one")


def _load(folder: Path, name: str, file: str) -> ModuleType:
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", folder / name / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
