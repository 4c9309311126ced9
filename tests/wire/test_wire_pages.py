"""Keeping freed memory: asked of the allocator once, and harmless."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import resource
from edgeward.wire.pages import keep_freed_memory
{}
bytes(1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    block = bytearray(1 << 20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(call)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_blocks_of_a_mebibyte_are_not_given_back_and_taken_anew():
    kept = faults("assert keep_freed_memory() in (True, False)")
    assert kept <= max(faults("pass"), 600)
