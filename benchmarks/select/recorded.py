"""What each detector of a ladder finds in real videos with ground truth, and what it takes: worked out once and kept.

    data = shared_data()
    street = recordings(data)["TUD"]
    boxes = street.boxes["nano"][17]             # of frame 17, in pixels
    seconds = measured(data)                     # of one answer on one thread of this machine, by model
    seconds = measured(data, FUSED)              # and of two models together

The files are results/.select.*: boxes by the weights and the input size of the rung, seconds by device and versions.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from harness import device, interleaved, versions  # noqa: E402

from edgeward.serve.fused import fused_model  # noqa: E402
from edgeward.serve.ladder import Ladder, Rung  # noqa: E402
from edgeward.serve.modelconfig import ModelConfig, looks_of, members_of  # noqa: E402
from edgeward.serve.models import ServedModel, StoredModel, default_cache, resolve_model  # noqa: E402
from edgeward.serve.runner import Runner  # noqa: E402
from edgeward.vision.fusion import fused_in_turn  # noqa: E402
from edgeward.vision.results import Detections  # noqa: E402
from edgeward.vision.truth import Truth, load_truth  # noqa: E402
from edgeward.vision.views import glance  # noqa: E402
from edgeward.weights.store import WeightStore  # noqa: E402

KEPT = HERE.parent / "results"
FUSED = ("fast+center320", "nano320+center320", "fast~nano320", "nano320~center320")
"""Rungs of two models, together or in turn: some that take less than the larger detectors, some that find more than any."""
CONFIDENCE = 0.05
"""Least score of a box; the precision-recall curve needs the faint ones, too."""
REPEATS = 41
PETS_FPS, TUD_FPS = 7.0, 25.0
"""At which the scenes were recorded; vtest.avi itself claims 10."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A video: what is really in it, and what each rung finds in every frame. fps: of the scene itself.

    certainty: what makes probabilities of the scores that models in turn give. glances: what each frame looks like from
    afar (`edgeward.vision.views`).
    """

    name: str
    fps: float
    width: int
    height: int
    truth: Truth
    boxes: Mapping[str, tuple[Detections, ...]]
    certainty: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    glances: tuple[np.ndarray, ...] = ()


def configs(data: Path) -> dict[str, ModelConfig]:
    """The ladder, by rung: four detectors and two more input sizes."""
    folder = data / "detectors"
    nano, center = folder / "nanodet/nanodet.json", folder / "centernet/centernet.json"
    entries = (
        {"name": "fast", "file": folder / "FastestDet/FastestDet.onnx", "convention": "fastestdet", "labels": "coco"},
        {"name": "ssd", "use": "ssdlite-person"},
        {"name": "nano320", "use": "nanodet", "file": nano, "input": {"height": 320, "width": 320}},
        {"name": "nano", "use": "nanodet", "file": nano},
        {"name": "center320", "use": "centernet", "file": center, "input": {"height": 320, "width": 320}},
        {"name": "center", "use": "centernet", "file": center},
    )
    return {str(entry["name"]): ModelConfig.model_validate(entry) for entry in entries}


def resolved(data: Path) -> dict[str, StoredModel]:
    """The rungs as the box serves them."""
    store = WeightStore(default_cache() / "weights")
    return {name: resolve_model(entry, store, default_cache(), "cpu") for name, entry in configs(data).items()}


def recordings(data: Path) -> dict[str, Recording]:
    """The videos with ground truth. What is not kept yet is worked out: some minutes."""
    models = resolved(data)
    return {
        name: Recording(
            name, fps, *size, load_truth(data / truth), _all_boxes(data, name, models), glances=_glances(data, name)
        )
        for name, (fps, size, truth) in {
            "PETS": (PETS_FPS, (768, 576), "multicam/pets2009_s2l1/view_001_gt_mot15.txt"),
            "TUD": (TUD_FPS, (640, 480), "mot/TUD-Stadtmitte/gt/gt.txt"),
        }.items()
    }


def pictures(data: Path, name: str) -> Iterator[np.ndarray]:
    """The frames of a recording, BGR, one after another."""
    if name == "TUD":
        yield from (cv2.imread(str(path)) for path in sorted((data / "mot/TUD-Stadtmitte/img1").glob("*.jpg")))
        return
    with av.open(str(data / "video/vtest.avi")) as container:
        yield from (frame.to_ndarray(format="bgr24") for frame in container.decode(video=0))


def with_fused(models: Mapping[str, StoredModel], names: Sequence[str]) -> dict[str, ServedModel]:
    """The models and some of them together, of whose scores nothing is known."""
    labels = next(iter(models.values())).card.labels[:1]
    same = tuple(Rung(name, (1.0,), 1.0) for name in models)
    made = {name: fused_model(name, models, Ladder("bench", labels, (0.0, 1.0), same)) for name in names}
    return {**models, **made}


def measured(data: Path, fused: Sequence[str] = ()) -> dict[str, float]:
    """Seconds of one answer of each model, and of some together, from a picture to boxes, on one thread; once per device.

    The lower quartile of interleaved runs: of a machine that others use, the nearest to an idle one.
    """
    kept = KEPT / ".select.seconds.json"
    stored = resolved(data)
    models = with_fused(stored, FUSED)
    identity = {"device": device(), "versions": versions("onnxruntime", "numpy"), "runs": REPEATS, "fused": list(FUSED), "rungs": {
        name: _identity(model) for name, model in stored.items()
    }}  # fmt: skip
    wanted = (*stored, *fused)
    if kept.exists() and (saved := json.loads(kept.read_text()))["identity"] == identity:
        return {name: saved["seconds"][name] for name in wanted}
    picture = next(pictures(data, "PETS"))
    runner = Runner(models, threads=1)
    for name in models:
        runner.load(name)

    def run(name: str) -> float:
        """In turn: the mean of a turn of each model."""
        begin, found = time.perf_counter(), []
        if looks_of(name) == 1:
            runner.infer(name, [runner.prepare(name, picture)], CONFIDENCE)
        for member in members_of(name) if looks_of(name) > 1 else ():
            found += runner.infer(member, [runner.prepare(member, picture)], CONFIDENCE)
            fused_in_turn(found)
        return (time.perf_counter() - begin) / looks_of(name)

    taken = interleaved({name: lambda name=name: run(name) for name in models}, REPEATS)
    runner.close()
    seconds = {name: float(np.quantile(each, 0.25)) for name, each in taken.items()}
    KEPT.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"identity": identity, "seconds": seconds}, indent=1))
    return {name: seconds[name] for name in wanted}


def answered(models: Mapping[str, ServedModel], picture: np.ndarray, repeats: int) -> dict[str, list[float]]:
    """Seconds of answers of each model, from a picture to boxes, on one thread: interleaved."""
    runner = Runner(models, threads=1)
    for name in models:
        runner.load(name)

    def run(name: str) -> float:
        begin = time.perf_counter()
        runner.infer(name, [runner.prepare(name, picture)], CONFIDENCE)
        return time.perf_counter() - begin

    taken = interleaved({name: functools.partial(run, name) for name in models}, repeats)
    runner.close()
    return taken


@dataclass(frozen=True)
class Held:
    """Bytes of a model in memory, and seconds until it can answer when it is not there."""

    bytes: int
    load_seconds: float


def held(data: Path) -> dict[str, Held]:
    """What it takes to have each rung in memory, loads measured anew: medians of five."""
    models = resolved(data)
    picture = next(pictures(data, "PETS"))
    runner = Runner(models, threads=1)

    def run(name: str) -> float:
        begin = time.perf_counter()
        runner.infer(name, [runner.prepare(name, picture)], CONFIDENCE)
        return time.perf_counter() - begin

    def load(name: str) -> float:
        begin = time.perf_counter()
        runner.load(name)
        attached = time.perf_counter() - begin
        first, second = run(name), run(name)
        runner.evict(name)
        return attached + max(first - second, 0.0)

    taken = interleaved({name: lambda name=name: load(name) for name in models}, 5)
    runner.close()
    return {
        name: Held(sum(model.spec.tensors.values()), float(np.median(taken[name]))) for name, model in models.items()
    }


def _all_boxes(data: Path, recording: str, models: Mapping[str, StoredModel]) -> dict[str, tuple[Detections, ...]]:
    return {name: _boxes(data, recording, name, model) for name, model in models.items()}


@functools.cache
def _glances(data: Path, recording: str) -> tuple[np.ndarray, ...]:
    return tuple(glance(picture) for picture in pictures(data, recording))


def _boxes(data: Path, recording: str, name: str, model: StoredModel) -> tuple[Detections, ...]:
    """Persons that a rung finds in each frame, class 0."""
    kept = KEPT / f".select.{recording}.{name}.{_identity(model)}.npz"
    if not kept.exists():
        runner = Runner({name: model}, threads=1)
        runner.load(name)
        person = model.card.labels.index("person")
        found = []
        for picture in pictures(data, recording):
            [boxes] = runner.infer(name, [runner.prepare(name, picture)], CONFIDENCE)
            assert isinstance(boxes, Detections)
            found.append(boxes[boxes.class_id == person])
        runner.close()
        KEPT.mkdir(exist_ok=True)
        np.savez_compressed(
            kept,
            xyxy=np.concatenate([each.xyxy for each in found]),
            confidence=np.concatenate([each.confidence for each in found]),
            ends=np.cumsum([len(each) for each in found]),
        )
    with np.load(kept, allow_pickle=False) as file:
        xyxy, confidence, ends = file["xyxy"], file["confidence"], file["ends"]
    starts = np.concatenate([[0], ends[:-1]])
    return tuple(
        Detections(xyxy[a:b], confidence[a:b], np.zeros(b - a, np.int32)) for a, b in zip(starts, ends, strict=True)
    )


def _identity(model: StoredModel) -> str:
    """Changes with the weights and with what goes into the model."""
    parts = (*sorted(model.packed.tensor_bytes), model.card.model_dump_json())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


if __name__ == "__main__":
    from harness import shared_data

    folder = shared_data()
    assert folder is not None
    print(json.dumps(measured(folder), indent=1))
    for each in recordings(folder).values():
        print(each.name, {name: sum(len(boxes) for boxes in found) for name, found in each.boxes.items()})
