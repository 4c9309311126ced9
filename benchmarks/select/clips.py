"""What the real box plays of the recordings: judged frames only, as a video file and as a folder of pictures.

with tempfile.TemporaryDirectory() as folder:
    pets, tud = clips(data, recordings(data), third=2, folder=Path(folder), seconds=16.0)
    pets.source                              # the file that the box opens
    tud.order[event.content]                 # the frame of the recording that was in a frame of the box
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import av
from calibrated import thirds
from film import Film, Piece
from recorded import PETS_FPS, TUD_FPS, Recording

__all__ = ["Clip", "clips", "pieces"]

KEY = 250
"""Frames of PETS from one that a decoder can begin at to the next."""


@dataclass(frozen=True)
class Clip:
    """The first `frames` of a source, so many times, and which frames of a recording it has in all."""

    recording: Recording
    source: str
    pieces: tuple[Piece, ...]
    frames: int
    times: int = 1

    @property
    def film(self) -> Film:
        """With some frames more: a box may begin one before it is told to stop."""
        return Film.of([*self.pieces] * (self.times + (self.times > 1)))

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """The frames of the recording, by their number in the source."""
        return tuple(itertools.chain.from_iterable(range(piece.first, piece.last) for piece in self.pieces))

    @property
    def seconds(self) -> float:
        return self.frames * self.times / self.recording.fps


def pieces(films: Mapping[str, Recording], third: int, seconds: float) -> list[list[Piece]]:
    """What is played of PETS and of TUD beside the third that calibrates: so many seconds from a key frame, and all."""
    pets, tud = films["PETS"], films["TUD"]
    count = round(seconds * PETS_FPS)
    begins = (first for part in thirds(pets, third)[1] for first in range(-(-part.start // KEY) * KEY, part.stop, KEY)
              if first + count <= part.stop)  # fmt: skip
    first = next(begins)
    return [
        [Piece(pets, first, first + count)],
        [Piece(tud, part.start, part.stop) for part in thirds(tud, third)[1]],
    ]


def clips(data: Path, films: Mapping[str, Recording], third: int, folder: Path, seconds: float) -> list[Clip]:
    """Of both what `pieces` says; the shorter one, twice where that is time for, from a folder with no more pictures."""
    [scene], street = pieces(films, third, seconds)
    begun = folder / "scene.avi"
    begun_at(data / "video/vtest.avi", scene.first, begun)
    every = sorted((data / "mot/TUD-Stadtmitte/img1").glob("*.jpg"))
    chosen = [every[index] for piece in street for index in range(piece.first, piece.last)]
    pictures = folder / "street"
    pictures.mkdir()
    for number, picture in enumerate(chosen):
        (pictures / f"{number:06}.jpg").symlink_to(picture.resolve())
    rest = Piece(scene.recording, scene.first, scene.recording.truth.frames)
    twice = 2 if seconds > len(chosen) / TUD_FPS else 1
    return [
        Clip(scene.recording, str(begun), (rest,), scene.last - scene.first),
        Clip(street[0].recording, str(pictures), tuple(street), len(chosen), twice),
    ]


def begun_at(source: Path, first: int, target: Path) -> None:
    """A copy of a video from a key frame on, none of it decoded.

    Raises ValueError where frame `first` is no key frame.
    """
    with av.open(str(source)) as have, av.open(str(target), "w") as made:
        stream = have.streams.video[0]
        copy = made.add_stream_from_template(stream)
        packets = itertools.islice((packet for packet in have.demux(stream) if packet.size), first, None)
        begin: int | None = None
        for packet in packets:
            if begin is None:
                if not packet.is_keyframe:
                    raise ValueError(f"{source.name}: frame {first} is no key frame; begin at a multiple of {KEY}")
                begin = packet.dts or 0
            packet.dts = (packet.dts or 0) - begin
            packet.pts = packet.dts
            packet.stream = copy
            made.mux(packet)
