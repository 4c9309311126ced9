"""Whether memory stays flat over 20,000 frames."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import psutil
from harness import row

from edgeward.serve.box import Box
from edgeward.serve.configfile import parse_config

FRAMES = 20_000
EVERY = 500
WARM = 2_000


def rows() -> list[dict[str, Any]]:
    """Resident memory of the process, sampled every 500 frames after the first 2,000."""
    with tempfile.TemporaryDirectory() as folder:
        samples = _samples(Path(folder))
    steady = samples[WARM // EVERY :]
    middle = sorted(steady)[len(steady) // 2]
    worst = max(abs(sample / middle - 1) for sample in steady)
    return [
        row(
            "endurance.resident_memory",
            f"largest deviation of resident memory from its median over frames {WARM} to {FRAMES}, sampled every {EVERY}",
            baseline=f"median {middle / 2**20:.0f} MiB", ours=worst, unit="fraction", bar="<= 0.02",
            spread=(min(steady) / middle, max(steady) / middle), note="SSDLite, tracker and store on, 640x480 synthetic camera",
        )
    ]  # fmt: skip


def _samples(folder: Path) -> list[int]:
    source = f"test://people?seed=1&width=640&height=480&frames={FRAMES}"
    config = parse_config(
        f"""
        cameras: [{{name: c, source: "{source}", rate: max, backpressure: every_frame}}]
        models: [{{name: m, use: ssdlite-person}}]
        queries: [{{camera: c, model: m, tracker: true, deadline: 10}}]
        budget: {{memory: 64 MiB, threads: 1}}
        data: "{folder}"
        """,
        "benchmark",
    )
    process, samples, answered = psutil.Process(), [], 0

    def sample(event: Any, state: Any) -> None:
        nonlocal answered
        if event.kind == "inferred":
            answered += 1
            if answered % EVERY == 0:
                samples.append(process.memory_info().rss)

    box = Box(config)
    box.observe(sample)
    with box:
        box.run(3600)
    return samples
