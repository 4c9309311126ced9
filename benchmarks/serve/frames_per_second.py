"""Frames per second of the box against bare loops in the same process, one compute thread each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
from harness import interleaved, ratio, row
from loops import Task, bare_fps, box_fps, supervision_fps

from edgeward.serve.models import default_cache
from edgeward.vision.card import ModelCard
from edgeward.vision.conventions import convention
from edgeward.vision.sources import packaged_clip
from edgeward.zoo.export import portable_onnx


def rows(full: bool, data: Path | None) -> list[dict[str, Any]]:
    """Box / bare loop, box with the page open / bare loop, box / loop with supervision and trackers."""
    cv2.setNumThreads(1)
    found = []
    for name, task in _tasks(full, data).items():
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                "bare": lambda task=task: bare_fps(task),
                "box": lambda task=task, folder=folder: box_fps(task, Path(folder)),
                "supervision": lambda task=task: supervision_fps(task),
                "page": lambda task=task, folder=folder: box_fps(task, Path(folder), page=True),
            }
            if not _browser():
                del runs["page"]
            taken = interleaved(runs, repeats=5 if full else 2)
        definition = f"frames per second of the box / of the baseline, {name}, {task.frames} frames"
        for id_, baseline, key, against, bar in (
            (f"{name}.fps_vs_bare", "decode, ONNX Runtime, decode boxes", "box", "bare", ">= 0.95"),
            (f"{name}.fps_with_page_vs_bare", "the same; a browser shows the page", "page", "bare", ">= 0.9"),
            (f"{name}.fps_vs_supervision", "the same with supervision and trackers", "box", "supervision", ">= 1.0"),
        ):
            if key not in taken:
                found.append(
                    row(id_, definition, baseline=baseline, ours=None, unit="x", bar=bar, note="no browser here")
                )
                continue
            middle, spread = ratio(taken[key], taken[against])
            note = "the browser draws on the same cores" if key == "page" else ""
            found.append(
                row(id_, definition, baseline=baseline, ours=middle, spread=spread, unit="x", bar=bar, note=note)
            )
    return found


def _tasks(full: bool, data: Path | None) -> dict[str, Task]:
    frames = 500 if full else 80
    onnx, card = portable_onnx("ssdlite-person", None, default_cache() / "models")
    tasks = {"ssdlite": Task(packaged_clip("bikes"), onnx, card, "{name: m, use: ssdlite-person}", frames)}
    if data is not None:
        file = data / "detectors/FastestDet/FastestDet.onnx"
        family = convention("fastestdet")
        fast = ModelCard(task="detection", convention="fastestdet", preprocess=family.preprocess((1, 3, 352, 352)))
        entry = f'{{name: m, file: "{file}", convention: fastestdet, labels: coco}}'
        tasks["fastestdet"] = Task(data / "video/vtest.avi", file, fast, entry, frames)
    return tasks


def _browser() -> str | None:
    from browser import find_browser

    return find_browser()
