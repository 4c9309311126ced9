"""Network cameras over real connections on this machine: HTTP multipart and RTSP interleaved over TCP."""

from __future__ import annotations

import itertools
import time

import cv2
import pytest
from vision_camera import HttpCamera, RtspCamera, SilentPeer, free_port
from vision_makevideo import number_of, write_video

from edgeward.errors import SourceError
from edgeward.vision.sources import open_source
from edgeward.vision.sources.network import network_source
from edgeward.vision.sources.webcam import WebcamSource


@pytest.fixture
def closing():
    """Closes whatever is put in it, in reverse order."""
    things = []
    yield lambda thing: things.append(thing) or thing
    for thing in reversed(things):
        thing.close()


def test_http_multipart_jpeg(closing):
    camera = closing(HttpCamera(free_port(), fps=20))
    source = closing(open_source(camera.url))
    frames = list(itertools.islice(source, 15))
    assert source.live
    assert [number_of(frame.image) for frame in frames] == list(range(15))
    assert [frame.index for frame in frames] == [frame.content_index for frame in frames] == list(range(15))
    times = [frame.time for frame in frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    # A multipart stream has no time stamps: arrival counts, after the burst that opening has read ahead.
    assert times[-1] - times[5] > 0.7 * 9 / 20


def test_rtsp_over_tcp(closing):
    camera = closing(RtspCamera(fps=50))
    source = closing(open_source(camera.url))
    frames = list(itertools.islice(source, 20))
    assert camera.methods[:4] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert [number_of(frame.image) for frame in frames] == [number % 16 for number in range(20)]
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(20)], abs=2e-3)
    assert source.live


@pytest.mark.parametrize("kind", [HttpCamera, RtspCamera])
def test_a_camera_that_falls_silent_is_noticed(closing, kind):
    camera = HttpCamera(free_port(), frames=12) if kind is HttpCamera else RtspCamera(silent_after=12)
    closing(camera)
    source = closing(network_source(camera.url, silence=0.8))
    begun = time.monotonic()
    seen = 0
    with pytest.raises(SourceError, match=r"broke off: no answer for 0\.8 s"):
        for _ in source:
            seen += 1
    assert seen == 12
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("scheme", ["rtsp", "http", "https"])
def test_a_peer_that_never_answers(closing, scheme):
    peer = closing(SilentPeer())
    with pytest.raises(SourceError, match=r"\*\*\*@127.*cannot be opened: no answer for 0\.5 s") as caught:
        network_source(f"{scheme}://admin:hunter22@127.0.0.1:{peer.port}/x", silence=0.5)
    assert "hunter22" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "the cause would show the password in a traceback"


def test_a_closed_port_says_so():
    with pytest.raises(SourceError, match="Connection refused"):
        open_source(f"rtsp://admin:hunter22@127.0.0.1:{free_port()}/x")


def test_a_capture_device(tmp_path, monkeypatch):
    """OpenCV opens a file as if it were the device: there is no camera on a build machine."""
    path = write_video(tmp_path / "clip.avi", frames=10, codec="mjpeg")
    opened = cv2.VideoCapture
    monkeypatch.setattr("edgeward.vision.sources.webcam.cv2.VideoCapture", lambda number: opened(str(path)))
    source = WebcamSource(0)
    frames = list(itertools.islice(source, 10))
    assert [number_of(frame.image) for frame in frames] == list(range(10))
    assert all(later.time > earlier.time for earlier, later in itertools.pairwise(frames))
    assert (source.live, source.fps) == (True, 25.0)
    with pytest.raises(SourceError, match="plugged in"):
        list(source)
    source.close()
    source.close()
    assert list(source) == []
