"""ScissionLite's published rows, read beside the tests that rest on them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any


def answers(data: Path) -> list[tuple[Any, Any]]:
    file = Path(__file__).resolve().parents[2] / "tests" / "split" / "split_golden.py"
    spec = importlib.util.spec_from_file_location("split_golden", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["split_golden"] = module
    spec.loader.exec_module(module)
    return list(module.answers(data))
