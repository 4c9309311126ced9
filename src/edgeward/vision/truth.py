"""What is really in a recording: annotated boxes by frame, to score results against.

    truth = load_truth(Path("gt.txt"))
    boxes = truth.at(0)
    print(truth.frames, boxes.xyxy[~boxes.ignored])

Two file formats: MOTChallenge text (Leal-Taixé et al., arXiv 1504.01942, section 3.3) and COCO JSON
(Lin et al., ECCV 2014), either also as .gz.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError
from edgeward.vision.results import FloatArray, IntArray

__all__ = ["Truth", "TruthFrame", "load_truth"]

MAX_BYTES = 64 << 20
"""Largest file that is read, and largest text that a .gz may unpack to: 1.5 million boxes, 0.9 GB while it is read."""
MAX_FRAME = 10_000_000
MAX_TRACK = 2**31 - 1
BoolArray = npt.NDArray[np.bool_]
Row = tuple[int, int, int, float, float, float, float, bool]
"""Frame from 0, track, class, left, top, width, height, ignored."""


@dataclass(frozen=True, eq=False)
class TruthFrame:
    """The annotated boxes of one frame.

    xyxy: float32 [n, 4], pixels. tracker_id: int32 [n], -1 where no identity is annotated.
    class_id: int32 [n]. ignored: bool [n]; finding such a box is neither right nor wrong.
    """

    xyxy: FloatArray
    tracker_id: IntArray
    class_id: IntArray
    ignored: BoolArray

    def __len__(self) -> int:
        return len(self.xyxy)


@dataclass(frozen=True, eq=False)
class Truth:
    """All annotated boxes of a recording, ordered by frame.

    frames: number of frames; their content indices are 0..frames-1.
    labels: class names, in the order of the class numbers.
    frame: int32 [n], the content index of each box, ascending; `boxes` has the same n.

    Raises ValueError when the columns do not fit each other.
    """

    frames: int
    labels: tuple[str, ...]
    frame: IntArray
    boxes: TruthFrame

    def __post_init__(self) -> None:
        columns = (self.boxes.xyxy, self.boxes.tracker_id, self.boxes.class_id, self.boxes.ignored)
        if any(len(column) != len(self.frame) for column in columns):
            raise ValueError(f"{len(self.frame)} frame numbers, columns of {[len(column) for column in columns]}")
        if len(self.frame) and not 0 <= self.frame[0] <= self.frame[-1] < self.frames:
            raise ValueError(f"frame numbers {self.frame[0]}..{self.frame[-1]} outside 0..{self.frames - 1}")
        if (np.diff(self.frame) < 0).any():
            raise ValueError("frame numbers are not ascending")

    def at(self, index: int) -> TruthFrame:
        """The boxes of the frame with content index `index`; none outside the recording."""
        start, stop = np.searchsorted(self.frame, [index, index + 1])
        here = slice(int(start), int(stop))
        boxes = self.boxes
        return TruthFrame(boxes.xyxy[here], boxes.tracker_id[here], boxes.class_id[here], boxes.ignored[here])


def load_truth(path: Path) -> Truth:
    """Read ground truth from `path`.

    MOTChallenge text: `frame,id,left,top,width,height,flag,...` with frames from 1; rows with flag 0 are to be
    ignored; every box is a "person". COCO JSON: `bbox` is [left, top, width, height]; annotations with `iscrowd` or
    `ignore` are to be ignored; images are frames in the order of their `frame_id` (from 0) where they have one,
    else of their file names (numbers compare as numbers); `track_id` is the identity.

    Raises ConfigError, naming the file and the line or annotation, for whatever is wrong with it.
    """
    text = _read(path)
    if text.lstrip()[:1] == "{":
        return _from_coco(path, text)
    return _from_mot(path, text)


def _read(path: Path) -> str:
    """The file's text, unpacked; never more than MAX_BYTES of it are held."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"ground truth {path} cannot be read: {error}; give a MOT text or COCO JSON file") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"ground truth {path} holds more than {MAX_BYTES >> 20} MiB; split the recording")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"ground truth {path} is not text ({error}); give a MOT text or COCO JSON file") from error


def _from_mot(path: Path, text: str) -> Truth:
    rows: list[Row] = []
    seen: set[tuple[int, int]] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = line.split(",")
        try:
            frame, track, *box = (float(field) for field in fields[:6])
            flag = float(fields[6]) if len(fields) > 6 else 1.0
            left, top, width, height = box
        except ValueError as error:
            raise ConfigError(
                f"{where}: {line[:80]!r} is not 'frame,id,left,top,width,height,flag' in numbers"
            ) from error
        row = (_whole(frame, 1, MAX_FRAME, "frame", where) - 1, _whole(track, -1, MAX_TRACK, "id", where), 0)
        ignored = flag == 0
        if not ignored and track >= 0:
            if row[:2] in seen:
                raise ConfigError(f"{where}: id {row[1]} is in frame {row[0] + 1} twice; an identity is in one place")
            seen.add(row[:2])
        rows.append((*row, *_box((left, top, width, height), where), ignored))
    if not rows:
        raise ConfigError(f"ground truth {path} is empty; give a MOT text or COCO JSON file")
    return _truth(max(row[0] for row in rows) + 1, ("person",), rows)


def _from_coco(path: Path, text: str) -> Truth:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"ground truth {path} is not valid JSON: {error}") from error
    categories, images = _records(path, record, "categories"), _records(path, record, "images")
    classes = {_of(category, "id", f"{path}, category {n}"): n for n, category in enumerate(categories)}
    labels = tuple(str(_of(category, "name", f"{path}, category {n}")) for n, category in enumerate(categories))
    frames = _frames_of_images(path, images)
    rows: list[Row] = []
    for number, note in enumerate(_records(path, record, "annotations")):
        where = f"{path}, annotation {number}"
        frame = frames.get(_of(note, "image_id", where))
        class_id = classes.get(_of(note, "category_id", where))
        box = _of(note, "bbox", where)
        if frame is None or class_id is None:
            raise ConfigError(f"{where}: image_id or category_id names nothing in this file")
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
            raise ConfigError(f"{where}: bbox {str(box)[:80]} is not [left, top, width, height] in numbers")
        track = _whole(note.get("track_id", -1), -1, MAX_TRACK, "track_id", where)
        rows.append((frame, track, class_id, *_box(tuple(box), where), bool(note.get("iscrowd") or note.get("ignore"))))
    return _truth(max(frames.values(), default=-1) + 1, labels, rows)


def _frames_of_images(path: Path, images: list[Mapping[str, Any]]) -> dict[Any, int]:
    """Content index by image id."""
    ids = [_of(image, "id", f"{path}, image {number}") for number, image in enumerate(images)]
    if images and all("frame_id" in image for image in images):
        frames = [
            _whole(image["frame_id"], 0, MAX_FRAME, "frame_id", f"{path}, image {number}")
            for number, image in enumerate(images)
        ]
        if len(set(frames)) < len(frames):
            raise ConfigError(f"{path}: a frame_id is there twice; give one file per recording")
        return dict(zip(ids, frames, strict=True))
    order = sorted(range(len(images)), key=lambda number: _natural(str(images[number].get("file_name", ids[number]))))
    return {ids[number]: frame for frame, number in enumerate(order)}


def _natural(name: str) -> list[tuple[int, int, str]]:
    """The order in which a folder of images is played: img2 before img10."""
    pieces = re.split(r"(\d{1,18})", name.casefold())
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece]


def _records(path: Path, record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = record.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ConfigError(f"ground truth {path} has no list {key!r}; COCO has 'images', 'annotations', 'categories'")
    return found


def _of(record: Mapping[str, Any], key: str, where: str) -> Any:
    value = record.get(key)
    if value is None or (key != "bbox" and not isinstance(value, int | str)):
        raise ConfigError(f"{where}: {key} is {str(value)[:80]}; it must be a number or a name")
    return value


def _whole(value: Any, low: int, high: int, name: str, where: str) -> int:
    if not isinstance(value, int | float) or not low <= value <= high or value != int(value):
        raise ConfigError(f"{where}: {name} {str(value)[:80]} is not a whole number in {low}..{high}")
    return int(value)


def _box(box: tuple[float, ...], where: str) -> tuple[float, float, float, float]:
    left, top, width, height = box
    if not all(math.isfinite(value) and abs(value) < 1e6 for value in box) or width < 0 or height < 0:
        raise ConfigError(f"{where}: box {box} needs coordinates in pixels within ±1e6, width and height not negative")
    return left, top, width, height


def _truth(frames: int, labels: tuple[str, ...], rows: Iterable[Row]) -> Truth:
    table = np.array(sorted(rows, key=lambda row: row[0]), np.float64).reshape(-1, 8)
    left_top, size = table[:, 3:5], table[:, 5:7]
    boxes = TruthFrame(
        np.hstack([left_top, left_top + size]).astype(np.float32),
        table[:, 1].astype(np.int32),
        table[:, 2].astype(np.int32),
        table[:, 7] > 0,
    )
    return Truth(frames, labels, table[:, 0].astype(np.int32), boxes)
