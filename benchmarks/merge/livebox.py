"""One run of the real box in a process of its own, with a page cache that keeps nothing: `python livebox.py BOX.yaml DISK`.

On a device whose memory is full, pages that no process maps are gone at once: so are those of DISK here, after evictions.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgeward.serve.box import Box
from edgeward.serve.configfile import load_config
from edgeward.serve.runner import Runner


class Pages:
    """The files of a folder, held open: opening them again would wait for the disk."""

    def __init__(self, folder: Path) -> None:
        self._files = [os.open(path, os.O_RDONLY) for path in folder.iterdir()]

    def forget(self) -> None:
        """Let the page cache forget them, except for what is mapped now."""
        for file in self._files:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            os.close(file)


def main(file: Path, disk: Path) -> None:
    pages, evict = Pages(disk), Runner.evict

    def evict_and_forget(runner: Runner, name: str, keep_for: str = "") -> None:
        evict(runner, name, keep_for)
        pages.forget()

    # An observer would be told too late: by then the next load has begun.
    Runner.evict = evict_and_forget  # type: ignore[assignment, method-assign]
    with Box(load_config(file)) as box:
        box.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
