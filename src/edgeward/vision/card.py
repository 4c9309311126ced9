"""What one needs to know of a model to feed it and read its answers.

spec = Preprocess(height=300, width=300, colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)
card = ModelCard(task="detection", convention="ssd", labels=("person",), preprocess=spec)
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from edgeward.vision.tiles import Tiles

__all__ = ["Channels", "ModelCard", "Preprocess", "Task"]

Task = Literal["detection", "classification", "embedding"]
Channels = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
"""One number for each channel, in the order of `Preprocess.colour`."""

Side = Annotated[int, Field(ge=8, le=8192)]


class Preprocess(BaseModel):
    """How a picture becomes a model's input: (pixel - mean) / std, pixels being 0..255.

    height, width: pixels of the input, 8..8192.
    colour: the order of the channels.
    mean, std: pixel values per channel, in that order; a model that wants pixels / 255 has std 255.
    fit: "stretch" resizes both sides on their own; "letterbox" keeps the shape, centred between bars of `pad`.
    interpolation: "linear", or "area", which averages all pixels that fall together.
    layout: "nchw" for [3, height, width], "nhwc" for [height, width, 3].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: Side
    width: Side
    colour: Literal["bgr", "rgb"] = "rgb"
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (255.0, 255.0, 255.0)
    fit: Literal["stretch", "letterbox"] = "stretch"
    interpolation: Literal["linear", "area"] = "linear"
    layout: Literal["nchw", "nhwc"] = "nchw"
    pad: int = Field(114, ge=0, le=255)

    @model_validator(mode="after")
    def _std_divides(self) -> Self:
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} has a value that is not above 0; pixels are divided by it")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the input for one picture, without the batch."""
        return (3, self.height, self.width) if self.layout == "nchw" else (self.height, self.width, 3)


class ModelCard(BaseModel):
    """A model's task, how to read its outputs, and how to make its input.

    convention: a name in `edgeward.vision.conventions.CONVENTIONS`.
    labels: the names of its classes in order; empty when they are not known or it has none.
    tiles: how a detector looks at a picture; one tile is the whole of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    convention: str
    labels: tuple[str, ...] = ()
    preprocess: Preprocess
    tiles: Tiles = Tiles()

    @property
    def fed(self) -> str:
        """What it looks at, in words."""
        shape = f"{self.preprocess.width} x {self.preprocess.height} pixels"
        tiles = f"{self.tiles.columns} x {self.tiles.rows} tiles that overlap by {self.tiles.overlap:.3g}"
        return shape if self.tiles.count == 1 else f"{tiles}, {shape} each"
