"""A variant: one network of a family with all that is needed to choose it, and the file of a portfolio of them.

    portfolio = load_portfolio(Path("people"))            # the folder, or its portfolio.json
    variant = portfolio["people-0.25x"]
    variant.latency["pi"].median, variant.accuracy.value  # seconds, share in [0, 1]
    portfolio.place(variant, Path("people"))              # the folder of its artefact

A portfolio is a folder with `portfolio.json` and, below it, one folder per variant. Its JSON is plain and versioned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgeward.errors import ModelError, nearest
from edgeward.profile.file import replace_text

__all__ = ["PORTFOLIO_FILE", "Accuracy", "LatencyFigure", "Portfolio", "Variant", "load_portfolio", "save_portfolio"]

VERSION = 1
PORTFOLIO_FILE = "portfolio.json"
LARGEST_BYTES = 4 << 20
_HINT = "make it again with: edgeward prune portfolio"

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LatencyFigure(_Value):
    """Seconds of one inference on one device: median, 10th and 90th percentile."""

    median: Seconds
    low: Seconds
    high: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"low {self.low}, median {self.median}, high {self.high} s are not in rising order")
        return self

    @classmethod
    def of(cls, seconds: Sequence[float]) -> LatencyFigure:
        """The figure of measured seconds, percentiles by the nearest rank. Raises ModelError when there are none."""
        if not seconds:
            raise ModelError("no measured seconds; time at least one inference")
        ordered = sorted(seconds)
        last = len(ordered) - 1
        low, median, high = (ordered[round(share * last)] for share in (0.1, 0.5, 0.9))
        return cls(median=median, low=low, high=high)


class Accuracy(_Value):
    """Share of right answers in [0, 1], its standard error, and the data it was measured on."""

    value: Share
    error: Annotated[float, Field(ge=0, le=1)] = 0.0
    data: str = Field(min_length=1)


class Variant(_Value):
    """A network with its profile.

    folder: of its artefact, relative to the portfolio's. method: how it was made. parameters, macs: counts, of one
    sample. bytes: of its weights. peak_bytes: most memory that one inference holds, weights included; None when not
    measured. latency: by device. sparsity: share of zeros of the sparse network it was converted from, None for others.
    """

    name: str = Field(pattern=r"^[\w.\-]{1,64}$")
    folder: str
    method: str
    parameters: Count
    macs: Count
    bytes: Count
    peak_bytes: Count | None = None
    latency: dict[str, LatencyFigure] = Field(default_factory=dict)
    accuracy: Accuracy | None = None
    sparsity: Share | None = None

    @field_validator("folder")
    @classmethod
    def _below(cls, folder: str) -> str:
        """A file from elsewhere must not make us open what lies outside its own folder."""
        path, windows = PurePosixPath(folder), PureWindowsPath(folder)
        if not folder or path.is_absolute() or windows.drive or "\\" in folder or ".." in path.parts:
            raise ValueError(f"{folder!r} is not a folder below the portfolio; write it relative, without '..'")
        return folder

    @property
    def memory(self) -> int:
        """Bytes to reckon with: the peak where it was measured, else the weights."""
        return self.bytes if self.peak_bytes is None else self.peak_bytes

    def on(self, device: str) -> LatencyFigure:
        """Its latency on a device. Raises ModelError, naming the measured ones, when that is unknown."""
        if device not in self.latency:
            known = nearest(device, self.latency) if self.latency else "none was measured"
            raise ModelError(f"variant {self.name!r} has no latency on {device!r}; {known}")
        return self.latency[device]


class Portfolio(_Value):
    """Variants of one model, each under its own name."""

    version: int = VERSION
    model: str
    variants: tuple[Variant, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.version != VERSION:
            raise ValueError(f"portfolio version {self.version}, this edgeward reads {VERSION}; {_HINT}")
        names = [variant.name for variant in self.variants]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two variants are named {twice[0]!r}; give each its own name")
        return self

    def __getitem__(self, name: str) -> Variant:
        """The variant of that name. Raises ModelError that names the nearest."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise ModelError(
            f"no variant {name!r} of {self.model!r}; {nearest(name, (each.name for each in self.variants))}"
        )

    def place(self, variant: Variant, folder: Path) -> Path:
        """The folder of a variant's artefact, of a portfolio in `folder`."""
        return folder / variant.folder


def load_portfolio(path: Path) -> Portfolio:
    """A portfolio from its folder or file.

    Raises ModelError when it is absent, too large, no portfolio, of another version, or names a folder outside itself.
    """
    file = path if path.suffix == ".json" else path / PORTFOLIO_FILE
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise ModelError(f"{file} has {file.stat().st_size} bytes; portfolios have at most {LARGEST_BYTES}")
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read portfolio {file}: {error.strerror}; {_HINT}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON ({error}); {_HINT}") from error
    version = record.get("version") if isinstance(record, dict) else None
    if version is None:
        raise ModelError(f"{file} is not a portfolio: it has no 'version'; {_HINT}")
    if version != VERSION:  # before its fields, which another version may have changed
        raise ModelError(f"{file} has portfolio version {version!r}, this edgeward reads {VERSION}; {_HINT}")
    try:
        return Portfolio.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "portfolio"
        raise ModelError(f"{file}: {where}: {first['msg'].removeprefix('Value error, ')}; {_HINT}") from error


def save_portfolio(portfolio: Portfolio, folder: Path) -> Path:
    """Write `portfolio.json` in `folder`, wholly or not at all; its path. Raises StoreError when the disk refuses."""
    file = folder / PORTFOLIO_FILE
    replace_text(file, json.dumps(portfolio.model_dump(mode="json"), indent=1) + "\n")
    return file
