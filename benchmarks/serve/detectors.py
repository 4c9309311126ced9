"""Accuracy and cost of our own graphs of the four detectors, on vtest.avi with its ground truth.

The figures to meet are those of the data's README, measured there with other code.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from harness import row

from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import ServedModel, default_cache, resolve_model
from edgeward.vision.conventions import convention
from edgeward.vision.metrics import average_precision
from edgeward.vision.preprocess import prepare
from edgeward.vision.truth import load_truth
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore

STRIDE = 5
"""Every fifth frame, as the reference figures were taken."""


@dataclass(frozen=True)
class Reference:
    """A detector and the average precision it is known to have."""

    config: ModelConfig
    ap: float
    limit_ms: float | None


def rows(data: Path, full: bool) -> list[dict[str, Any]]:
    """AP at IoU 0.5 against the reference, and CPU milliseconds of one inference."""
    truth = load_truth(data / "multicam/pets2009_s2l1/view_001_gt_mot15.txt")
    frames = range(0, truth.frames, STRIDE)
    pictures = _pictures(data / "video/vtest.avi", frames)
    store = WeightStore(default_cache() / "weights")
    found = []
    for name, reference in _references(data).items():
        model = resolve_model(reference.config, store, default_cache(), "cpu")
        results, costs = _detect(model, store, pictures)
        ap = average_precision(results, truth, iou=0.5, frames=list(frames))
        note = f"AP {ap:.3f} over {len(pictures)} frames"
        found.append(
            row(
                f"{name}.ap_vs_reference", "|AP@0.5 (COCO, 101 points) - reference|, person, vtest.avi, every 5th frame",
                baseline=f"{reference.ap:.3f}", ours=round(abs(ap - reference.ap), 4), unit="", bar="<= 0.01", note=note,
            )
        )  # fmt: skip
        limit = f"<= {reference.limit_ms:g}" if reference.limit_ms else ""
        found.append(
            row(
                f"{name}.cpu_ms", "CPU milliseconds of one inference on one thread (ONNX Runtime run), median",
                baseline="node by node in torch" if reference.limit_ms else "plain ONNX Runtime",
                ours=statistics.median(costs), spread=(min(costs), max(costs)), unit="ms", bar=limit,
            )
        )  # fmt: skip
    return found


def _references(data: Path) -> dict[str, Reference]:
    folder = data / "detectors"
    person = ModelConfig(name="ssdlite", use="ssdlite-person")
    nanodet = ModelConfig(name="nanodet", use="nanodet", file=folder / "nanodet/nanodet.json")
    centernet = ModelConfig(name="centernet", use="centernet", file=folder / "centernet/centernet.json")
    fastest = ModelConfig(
        name="fastestdet", file=folder / "FastestDet/FastestDet.onnx", convention="fastestdet", labels="coco"
    )
    return {
        "ssdlite": Reference(person, 0.613, 30),
        "nanodet": Reference(nanodet, 0.903, 60),
        "centernet": Reference(centernet, 0.874, None),
        "fastestdet": Reference(fastest, 0.767, None),
    }


def _pictures(video: Path, wanted: range) -> dict[int, np.ndarray]:
    with av.open(str(video)) as container:
        return {i: f.to_ndarray(format="bgr24") for i, f in enumerate(container.decode(video=0)) if i in wanted}


def _detect(
    model: ServedModel, store: WeightStore, pictures: dict[int, np.ndarray]
) -> tuple[dict[int, Any], list[float]]:
    """Persons found in each picture at confidence 0.05 and the CPU milliseconds of each run."""
    family, spec = convention(model.card.convention), model.card.preprocess
    batch = np.empty((1, *spec.shape), np.float32)
    results, costs = {}, []
    with Session(model.packed, store) as session:
        for index, picture in pictures.items():
            placement = prepare(picture, spec, out=batch[0])
            begin = time.process_time()
            outputs = session.run({model.packed.inputs[0].name: batch})
            costs.append(1000 * (time.process_time() - begin))
            [boxes] = family.decode(outputs, [placement], 0.05)
            results[index] = boxes[boxes.class_id == 0]
    return results, costs
