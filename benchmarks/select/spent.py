"""What choosing costs: time of a choice beside that of a frame, of a joint choice beside the time between two of them.

python benchmarks/select/spent.py
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from harness import row  # noqa: E402

from edgeward.serve.choice import Answer  # noqa: E402
from edgeward.serve.joint import assign  # noqa: E402
from edgeward.serve.ladder import Ladder, Rung  # noqa: E402
from edgeward.serve.laddering import TURN_NS  # noqa: E402
from edgeward.serve.rules import Rules  # noqa: E402
from edgeward.serve.selection import Selector  # noqa: E402
from edgeward.vision.results import Detections  # noqa: E402

FPS, WIDTH, HEIGHT, RUNGS, BOXES, CAMERAS = 30.0, 1280, 720, 6, 10, 4
LADDER = Ladder(
    "bench",
    ("person",),
    (0.0, 0.05, 0.1, 0.2, 1.0),
    tuple(
        Rung(f"m{step}", tuple(min(0.3 + 0.1 * step + 0.1 * bin_, 0.95) for bin_ in range(4)), 0.01 * 1.6**step)
        for step in range(RUNGS)
    ),
)
FRAME = 1 / FPS


def rows(full: bool) -> list[dict[str, Any]]:
    """A choice of a frame at 30 a second; a joint choice of the time from one to the next."""
    alone = _alone(2000 if full else 300)
    turns = _together(60 if full else 15)
    per_frame = 100 * statistics.median(alone) / FRAME
    joint = 100 * statistics.median(turns) / (TURN_NS / 1e9)
    return [
        row(
            "select.cost.choice",
            f"time to choose and to learn from an answer, {RUNGS} models, {BOXES} moving boxes, of the time of a frame at"
            f" {FPS:g} a second: median",
            baseline=f"a frame, {1000 * FRAME:.1f} ms", ours=round(per_frame, 3), unit="%", bar="<= 1",
            spread=tuple(100 * float(np.quantile(alone, q)) / FRAME for q in (0.05, 0.95)),
            note=f"{1e6 * statistics.median(alone):.0f} microseconds; spread: 5 % and 95 % of the frames",
        ),
        row(
            "select.cost.joint",
            f"time of a joint choice for {CAMERAS} cameras, all {RUNGS**CAMERAS} combinations, of the time from one to the"
            " next: median",
            baseline=f"{TURN_NS / 1e6:.0f} ms", ours=round(joint, 3), unit="%", bar="<= 1",
            spread=tuple(100 * float(np.quantile(turns, q)) / (TURN_NS / 1e9) for q in (0.05, 0.95)),
            note=f"{1000 * statistics.median(turns):.1f} ms",
        ),
    ]  # fmt: skip


def _alone(frames: int) -> list[float]:
    """Seconds that choosing takes at each frame."""
    selector, taken = _selector(), []
    for frame in range(frames):
        boxes, now = _boxes(frame), frame * FRAME
        begin = time.perf_counter()
        choice = selector.choice(now)
        selector = selector.taken(choice, now)
        selector = selector.observe(Answer(choice.name, now, boxes), now + FRAME / 2, LADDER.rung(choice.name).seconds)
        taken.append(time.perf_counter() - begin)
    return taken[frames // 10 :]


def _together(turns: int) -> list[float]:
    """Seconds of each joint choice of cameras that see different paces."""
    cameras = {f"c{place}": _selector() for place in range(CAMERAS)}
    taken = []
    for turn in range(turns):
        now = turn * TURN_NS / 1e9
        for place, (name, selector) in enumerate(cameras.items()):
            answer = Answer(selector.choice(now).name, now, _boxes(turn * (place + 1)))
            cameras[name] = selector.taken(selector.choice(now), now).observe(answer, now + 0.01, 0.02)
        begin = time.perf_counter()
        assign(cameras, now)
        taken.append(time.perf_counter() - begin)
    return taken


def _selector() -> Selector:
    return Selector.start(LADDER, Rules(FPS, WIDTH, HEIGHT, own_frame=False))


def _boxes(frame: int) -> Detections:
    """Ten people who walk at different paces."""
    place = np.arange(BOXES)
    left = (100.0 * place + (1 + place % 4) * frame) % (WIDTH - 80)
    top, side = 40.0 * place, 20.0 + 8 * place
    return Detections(
        np.stack([left, top, left + side, top + 2 * side], axis=1), np.linspace(0.4, 0.9, BOXES), np.zeros(BOXES)
    )


if __name__ == "__main__":
    for line in rows("--full" in sys.argv):
        print((line["id"], line["baseline"], line["ours"], line["met"], line["note"]))
