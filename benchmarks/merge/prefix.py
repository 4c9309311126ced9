"""Several heads on one trunk, as a box runs them on the frames of a video: the common beginning once, or each whole.

python benchmarks/merge/prefix.py [--full]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from harness import interleaved, ratio, row

from edgeward.serve.beginnings import BegunModel, begin_together
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import ServedModel, StoredModel, resolve_model
from edgeward.serve.runner import Runner
from edgeward.vision.frames import Image
from edgeward.vision.sources import open_source, packaged_clip
from edgeward.weights.skeleton import Skeleton
from edgeward.weights.store import WeightStore

CLASSES = (1000, 10, 3)
OWN = 14
"""Of the stem (0), sixteen blocks, and last convolution (17) of EfficientNet-Lite0, from which on the models of the row `partly` have weights of their own."""
FRAMES = {True: 60, False: 12}
CONFIDENCE = 0.5


def prefix(full: bool) -> list[dict[str, Any]]:
    """Seconds of a frame with two and three heads, with a trunk common in part, and alone; multiply-adds; memory."""
    with tempfile.TemporaryDirectory() as folder:
        heads, partly = models(Path(folder), len(CLASSES)), models(Path(folder), 2, own_from=OWN)
        frames = pictures(FRAMES[full])
        two = dict(list(heads.items())[:2])
        return [
            *compared("two", "two heads on the trunk of EfficientNet-Lite0", two, frames, "<= 0.6"),
            *compared("three", "three heads on it", heads, frames, "<= 0.45"),
            *compared(
                "partly", f"two EfficientNet-Lite0 that agree up to block {OWN - 1} of 16", partly, frames, "<= 0.8"
            ),
            alone(heads, frames),
        ]


def models(folder: Path, count: int, own_from: int | None = None) -> dict[str, StoredModel]:
    """Classifiers on the trained trunk, each with a last layer of its own, and from layer `own_from` on with all."""
    import torch

    from edgeward.graph.onnx import export_module
    from edgeward.zoo.efficientnet import EfficientNetLite0
    from edgeward.zoo.packaged import packaged

    entry = packaged("efficientnet-lite0")
    trained, spec = entry.load().state_dict(), entry.card.preprocess
    found, store = {}, WeightStore(folder / "weights")
    for classes in CLASSES[:count]:
        torch.manual_seed(classes)
        network = EfficientNetLite0(classes)
        state = {
            key: trained[key] if trained[key].shape == own.shape else own for key, own in network.state_dict().items()
        }
        if own_from is not None:
            tuned = {key for key in state if int(key.split(".")[0]) >= own_from and state[key].is_floating_point()}
            state |= {key: state[key] * (1 + 0.01 * torch.rand_like(state[key])) for key in tuned}
        network.load_state_dict(state)
        path = folder / f"{'own' if own_from else 'head'}{classes}.onnx"
        path.write_bytes(export_module(network.eval(), torch.zeros(1, *spec.shape)))
        config = ModelConfig(
            name=path.stem, file=path, convention="logits", input=spec.model_dump(include={"mean", "std"})
        )
        found[path.stem] = resolve_model(config, store, folder, "cpu")
    return found


def pictures(count: int) -> list[Image]:
    """Frames of the clip that comes with edgeward."""
    frames = iter(open_source(str(packaged_clip("bikes"))))
    return [frame.image for frame, _ in zip(frames, range(count), strict=False)]


def compared(
    name: str, what: str, whole: Mapping[str, StoredModel], frames: list[Image], bar: str
) -> list[dict[str, Any]]:
    """Seconds and multiply-adds of a frame, begun together / each model whole; one thread."""
    together = begin_together(whole)
    kinds: dict[str, Mapping[str, ServedModel]] = {"together": together, "whole": whole}
    taken = interleaved({kind: _timed(each, frames) for kind, each in kinds.items()}, len(frames))
    ours, spread = ratio(taken["together"], taken["whole"])
    begun = [each for each in together.values() if isinstance(each, BegunModel)]
    works = [Skeleton(each.packed, each.store).work() for each in begun]
    shares = [each.beginning.endings[each.place].share for each in begun]
    after = sum(work * (1 - share) for work, share in zip(works, shares, strict=True))
    crossing = [port.shape[1:] for port in begun[0].beginning.prefix.outputs]
    milliseconds = {kind: 1000 * statistics.median(each) for kind, each in taken.items()}
    return [
        row(f"prefix.{name}.seconds", f"{what}: seconds from a frame to all answers, the common beginning computed once / each model whole; median of the ratios of {len(frames)} frames of 640x272, interleaved, one thread",
            baseline=f"whole: {milliseconds['whole']:.1f} ms", ours=ours, unit="x", bar=bar, spread=spread,
            note=f"{milliseconds['together']:.1f} ms; together, the input is made once, too"),
        row(f"prefix.{name}.operations", f"{what}: multiply-adds of a frame, counted, the common beginning once / each model whole",
            baseline=f"whole: {sum(works) / 1e6:.0f} M", ours=(works[0] * shares[0] + after) / sum(works), unit="x",
            note=f"{(works[0] * shares[0] + after) / 1e6:.0f} M; what crosses the cut for one picture: {crossing}"),
    ]  # fmt: skip


def alone(whole: Mapping[str, StoredModel], frames: list[Image]) -> dict[str, Any]:
    """What it costs a model to be run in two pieces when nobody else looks at the frame."""
    name = next(iter(whole))
    pieces = {name: begin_together(whole)[name]}
    kinds: dict[str, Mapping[str, ServedModel]] = {"pieces": pieces, "whole": {name: whole[name]}}
    taken = interleaved({kind: _timed(each, frames) for kind, each in kinds.items()}, len(frames))
    ours, spread = ratio(taken["pieces"], taken["whole"])
    line: dict[str, Any] = row("prefix.alone.seconds", "one of the three heads, when no other looks at its frame: seconds in two pieces / whole",
               baseline=f"whole: {1000 * statistics.median(taken['whole']):.1f} ms", ours=ours, unit="x", bar="<= 1.05", spread=spread)  # fmt: skip
    return line


def _timed(models: Mapping[str, ServedModel], frames: list[Image]) -> Callable[[], float]:
    """Seconds that all models take to answer the next frame, prepared and decoded as in the box."""
    runner = Runner(models, threads=1)
    for name in models:
        runner.load(name)
        runner.infer(name, [runner.prepare(name, frames[0].copy())], CONFIDENCE)
    waiting = iter(frames * 2)

    def work() -> float:
        image = next(waiting).copy()  # another picture, to whoever knows it by its array
        started = time.perf_counter()
        for name in models:
            runner.infer(name, [runner.prepare(name, image)], CONFIDENCE)
        return time.perf_counter() - started

    return work


if __name__ == "__main__":
    print(json.dumps(prefix("--full" in sys.argv), indent=1))
