"""What all tests share: where real data is, one thread for everything that computes, and the cores in turns."""

from __future__ import annotations

import os
import pathlib

import pytest
from workers import MOST, Turns, cores

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The workers of `-n auto`; on one core the tests run in this process, as without `-n`."""
    return min(cores(), MOST) if cores() > 1 else 0


def pytest_configure(config: pytest.Config) -> None:
    """Let the tests of a worker take turns with those of the others."""
    if hasattr(config, "workerinput") and Turns.possible():
        config.pluginmanager.register(Turns(config.workerinput["testrunuid"]))


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real videos, models and ground truth; skips where it is absent."""
    given = os.environ.get("EDGEWARD_DATA")
    default = pathlib.Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = pathlib.Path(given) if given else default.resolve()
    if not (folder / "SHA256SUMS").is_file():
        pytest.skip(f"shared test data not found at {folder} (set EDGEWARD_DATA)")
    return folder
