"""What all tests share: where real data is, and one thread for everything that computes."""

from __future__ import annotations

import os
import pathlib

import pytest

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real videos, models and ground truth; skips where it is absent."""
    given = os.environ.get("EDGEWARD_DATA")
    default = pathlib.Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = pathlib.Path(given) if given else default.resolve()
    if not (folder / "SHA256SUMS").is_file():
        pytest.skip(f"shared test data not found at {folder} (set EDGEWARD_DATA)")
    return folder
