"""Pictures of recordings to measure models with: pairs of consecutive frames, spread evenly.

    clips = [Clip("yard.mp4", load_truth(Path("yard.txt")))]
    wanted = chosen_frames(frame_counts(clips), frames=300)
    for picture in sampled(clips, wanted, labels=("person",)):
        print(picture.video, picture.index, picture.image.shape, picture.truth)

A recording is read twice: to count its frames, and to take those that are wanted. None is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np

from edgeward.errors import ConfigError
from edgeward.vision.frames import Image, Source
from edgeward.vision.sources import open_source, redact
from edgeward.vision.truth import Truth, TruthFrame

__all__ = ["Clip", "Picture", "chosen_frames", "frame_counts", "sampled"]

LONGEST = 100_000
"""Frames that are looked at of one recording: more than an hour at 25 per second."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A recording (see docs/sources.md) and what is really in it, when that is known."""

    source: str
    truth: Truth | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame of a recording: `index` of the recording number `video`. truth: with the class numbers of a ladder."""

    image: Image
    video: int = 0
    index: int = 0
    truth: TruthFrame | None = None


def frame_counts(clips: Sequence[Clip], progress: Callable[[int], None] = lambda frames: None) -> list[int]:
    """Frames of each recording that can be used: those that its truth covers, too, when there is one.

    progress: told how many frames have been counted so far. Raises ConfigError for a live source and one
    without a frame; SourceError for one that cannot be read.
    """
    counts: list[int] = []
    for clip in clips:
        most = LONGEST if clip.truth is None else min(clip.truth.frames, LONGEST)
        with _opened(clip) as source:
            count = 0
            for count, _ in enumerate(source, start=1):
                progress(sum(counts) + count)
                if count == most:
                    break
        if not count:
            raise ConfigError(f"{redact(clip.source)} has no frame; give a recording that plays")
        counts.append(count)
    return counts


def chosen_frames(counts: Sequence[int], frames: int) -> list[frozenset[int]]:
    """Which frames of each recording to take, about so many in all and as many of each: pairs of consecutive frames,
    evenly spread; all of a recording that has not more.

    counts: as from `frame_counts`.
    """
    pairs = max(frames // (2 * len(counts)), 1)
    chosen = []
    for count in counts:
        starts = np.arange(count) if 2 * pairs >= count else (np.arange(pairs) + 0.5) * (count - 1) // pairs
        chosen.append(frozenset(int(start) + after for start in starts for after in (0, 1) if start + after < count))
    return chosen


def sampled(clips: Sequence[Clip], chosen: Sequence[frozenset[int]], labels: Sequence[str]) -> Iterator[Picture]:
    """The chosen frames of each recording, with their truth.

    labels: class names in the order of the ladder; a truth's other boxes are left out.
    """
    for video, (clip, wanted) in enumerate(zip(clips, chosen, strict=True)):
        last = max(wanted)
        with _opened(clip) as source:
            for frame in source:
                index = frame.content_index
                if index in wanted:
                    truth = None if clip.truth is None else _renumbered(clip.truth, index, labels)
                    yield Picture(frame.image, video, index, truth)
                if index >= last:
                    break


@contextmanager
def _opened(clip: Clip) -> Iterator[Source]:
    """A recording, closed at the end of the block. ConfigError for a live source: it cannot be read twice."""
    with closing(open_source(clip.source)) as source:
        if source.live:
            raise ConfigError(
                f"{redact(clip.source)} is live, but calibration reads its pictures twice; record some minutes of it "
                "and give the file with --video"
            )
        yield source


def _renumbered(truth: Truth, index: int, labels: Sequence[str]) -> TruthFrame:
    here = truth.at(index)
    numbers = np.array([labels.index(name) if name in labels else -1 for name in truth.labels] or [-1], np.int32)
    classes = numbers[here.class_id]
    kept = classes >= 0
    return TruthFrame(here.xyxy[kept], here.tracker_id[kept], classes[kept], here.ignored[kept])
