"""What a convention is: how the outputs of a family of models are to be read.

    family = convention("ssd")
    family.check(file.output_shapes, card)
    [boxes] = family.decode(outputs, [placement], confidence=0.3)

A new family is one subclass; `Detector` leaves it to state its scores and its boxes only. Outputs are
those of an untrusted model: shapes are checked on every call, values that are not finite are dropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeward.errors import ModelError
from edgeward.vision.card import Channels, ModelCard, Preprocess, Task
from edgeward.vision.nms import best, nms
from edgeward.vision.results import Detections, FloatArray, Result

if TYPE_CHECKING:
    from edgeward.vision.preprocess import Placement

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Convention",
    "Detector",
    "Indices",
    "Shape",
    "Size",
    "at_least",
    "grid_centres",
]

Shape = Sequence[int | str | None]
"""Of a tensor as an ONNX file states it: a text or None where a dimension is not fixed."""
Size = tuple[int, int]
"""Height and width of a model's input in pixels."""
Indices = npt.NDArray[np.integer[Any]]

MAX_VALUES = 1 << 24
MAX_CANDIDATES = 1000
MAX_BOXES = 300

IMAGENET_MEAN: Channels = (123.675, 116.28, 103.53)
IMAGENET_STD: Channels = (58.395, 57.12, 57.375)
"""Of the pixels of ImageNet in 0..255, RGB."""


class Convention(ABC):
    """How to feed a family of models and read its answers."""

    name: ClassVar[str]
    task: ClassVar[Task]
    outputs: ClassVar[str]
    """The outputs in words, for error messages."""
    usual: ClassVar[Preprocess] = Preprocess(height=224, width=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    """What models of this family are trained with, and their size where a file leaves it open."""

    def preprocess(self, input_shape: Shape) -> Preprocess:
        """The usual preprocessing for an input of this shape, [batch, 3, height, width] or [batch, height, width, 3].

        Raises ModelError when it is of neither form or a side is outside 8..8192.
        """
        size = list(input_shape[1:])
        layout = "nhwc" if len(size) == 3 and size[2] == 3 and size[0] != 3 else "nchw"
        sides = size[:2] if layout == "nhwc" else size[1:]
        if len(size) != 3 or (layout == "nchw" and isinstance(size[0], int) and size[0] != 3):
            raise ModelError(
                f"the model's input has shape {list(input_shape)}; a picture is [batch, 3, height, width] "
                "or [batch, height, width, 3]"
            )
        height, width = (
            side if isinstance(side, int) else default
            for side, default in zip(sides, (self.usual.height, self.usual.width), strict=True)
        )
        if not (8 <= height <= 8192 and 8 <= width <= 8192):
            raise ModelError(f"the model's input is {width} x {height} pixels; sides are 8 to 8192")
        return self.usual.model_copy(update={"height": height, "width": width, "layout": layout})

    def check(self, output_shapes: Sequence[Shape], card: ModelCard) -> None:
        """Raise ModelError when a model with these outputs cannot be what its card says."""
        if card.task != self.task:
            raise ModelError(f"convention {self.name!r} is for {self.task}, not for {card.task}")
        found = self.classes(output_shapes, (card.preprocess.height, card.preprocess.width))
        if card.labels and found is not None and found != len(card.labels):
            raise ModelError(f"the model has {found} classes but {len(card.labels)} labels are given; correct 'labels'")

    @abstractmethod
    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        """How many classes outputs of these shapes tell apart, for an input of `size`; None when that is open.

        Raises ModelError when no model of this family has such outputs.
        """

    @abstractmethod
    def decode(
        self, outputs: Sequence[npt.NDArray[Any]], placements: Sequence[Placement], confidence: float
    ) -> list[Result]:
        """One result per picture of a batch, in its order.

        outputs: as the model gave them, the batch first. placements: where each picture lies in the input.
        confidence: boxes fainter than this are left out. Raises ModelError when the shapes do not fit.
        """

    def verified(self, outputs: Sequence[npt.NDArray[Any]], placements: Sequence[Placement]) -> list[FloatArray]:
        """The outputs as float32, after checking them against the batch and the convention."""
        shapes = [output.shape for output in outputs]
        if any(not shape or shape[0] != len(placements) for shape in shapes):
            raise ModelError(f"{len(placements)} pictures went in, outputs of shapes {shapes} came out")
        if placements:
            self.classes(shapes, (placements[0].model_height, placements[0].model_width))
        return [np.asarray(output, np.float32) for output in outputs]

    def refuse(self, shapes: Sequence[Shape]) -> ModelError:
        """The error for outputs that this family does not have."""
        found = ", ".join(str(list(shape)) for shape in shapes) or "none"
        return ModelError(f"the outputs have shapes {found}; convention {self.name!r} has {self.outputs}")

    def fits(self, shapes: Sequence[Shape], *patterns: Shape) -> bool:
        """Whether each output has the rank of its pattern and the sizes that are fixed in both, and is not absurd."""
        return len(shapes) == len(patterns) and all(
            len(shape) == len(pattern)
            and all(
                not isinstance(size, int) or (size > 0 and not (isinstance(wanted, int) and size != wanted))
                for size, wanted in zip(shape[1:], pattern[1:], strict=True)
            )
            and np.prod([float(size) for size in shape[1:] if isinstance(size, int)]) <= MAX_VALUES
            for shape, pattern in zip(shapes, patterns, strict=True)
        )


class Detector(Convention):
    """A convention for boxes. `iou`: overlap above which the fainter of two boxes of a class goes; None keeps both."""

    task = "detection"
    iou: ClassVar[float | None] = 0.6

    @abstractmethod
    def scores(self, outputs: Sequence[FloatArray], confidence: float) -> tuple[Indices, Indices, FloatArray]:
        """Of one picture: (row, class, score) of what scores at least `confidence`; row is a position or anchor."""

    @abstractmethod
    def boxes(self, outputs: Sequence[FloatArray], rows: Indices, size: Size) -> npt.NDArray[np.floating[Any]]:
        """Boxes [len(rows), 4] as x1, y1, x2, y2 in pixels of the input."""

    def decode(
        self, outputs: Sequence[npt.NDArray[Any]], placements: Sequence[Placement], confidence: float
    ) -> list[Result]:
        arrays = self.verified(outputs, placements)
        with np.errstate(all="ignore"):
            return [
                self._picture([array[index] for array in arrays], placement, confidence)
                for index, placement in enumerate(placements)
            ]

    def _picture(self, outputs: Sequence[FloatArray], placement: Placement, confidence: float) -> Detections:
        rows, class_id, score = self.scores(outputs, confidence)
        certain = best(score, MAX_CANDIDATES)
        rows, class_id, score = rows[certain], class_id[certain], score[certain]
        xyxy = self.boxes(outputs, rows, (placement.model_height, placement.model_width))
        framed = placement.to_frame(xyxy)
        sound = np.isfinite(xyxy).all(axis=1) & np.isfinite(score) & (framed[:, 2:] > framed[:, :2]).all(axis=1)
        xyxy, framed, class_id, score = xyxy[sound], framed[sound], class_id[sound], score[sound]
        # Overlap is measured before clipping, so that it does not depend on how much of an object is in view.
        keep = np.arange(len(score)) if self.iou is None else nms(xyxy, score, class_id, self.iou)
        keep = keep[:MAX_BOXES]
        return Detections(framed[keep], np.clip(score[keep], 0, 1), class_id[keep].astype(np.int32))


def at_least(scores: FloatArray, least: float) -> tuple[Indices, Indices]:
    """Rows and columns of a matrix whose values reach `least` (a flat search is several times as fast)."""
    rows, columns = np.divmod(np.flatnonzero(scores.reshape(-1) >= least), scores.shape[1])
    return rows, columns


def grid_centres(
    rows: Indices, size: Size, strides: Sequence[int], shift: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centres [n, 2] (x, y) in pixels and strides [n, 1] of the cells `rows` of stacked grids.

    A grid has ceil(side / stride) cells a side; cells count row by row, grids in the order of `strides`.
    `shift` is 0.5 for centres in the middle of cells, 0 for their upper left corners.
    """
    widths = np.array([-(-size[1] // stride) for stride in strides])
    starts = np.cumsum([0] + [-(-size[0] // stride) * -(-size[1] // stride) for stride in strides])
    level = np.searchsorted(starts, rows, side="right") - 1
    y, x = np.divmod(rows - starts[level], widths[level])
    stride = np.asarray(strides, np.float64)[level][:, None]
    return (np.stack([x, y], axis=1) + shift) * stride, stride
