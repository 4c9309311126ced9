"""Commands within the tests' own process, which saves starting Python and torch for each."""

from __future__ import annotations

import sys

import pytest

from edgeward.cli import main


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Runs a command that must end with exit code 2; what it wrote to standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgeward", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr().err
        assert ended.value.code == 2, written
        assert "Traceback" not in written
        return written

    return run
