"""The camera reader: pacing, retrying, stopping, and that cameras do not get in each other's way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vision_camera import HttpCamera, RtspCamera, SilentPeer, free_port
from vision_makevideo import number_of, write_video

from edgeward.clock import NS, VirtualClock, to_ns
from edgeward.errors import ConfigError, SourceError
from edgeward.vision.frames import Frame, Source
from edgeward.vision.reader import CameraReader, Pace, Schedule, retry_seconds

AS_RECORDED = Pace()


class Ticking(threading.Event):
    """An event on virtual time: waiting for it moves the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        self.clock.sleep(timeout or 0.0)
        return self.is_set()


class Camera:
    """A reader with what it has said."""

    def __init__(self, url: str, pace: Pace = AS_RECORDED, clock: VirtualClock | None = None) -> None:
        self.frames: list[Frame] = []
        self.told: list[tuple[str, str]] = []
        self.arrived_ns: list[int] = []
        self.slow: Callable[[Frame], None] = lambda frame: None
        self.reader = CameraReader("cam", url, self._on_frame, lambda *told: self.told.append(told), pace, clock)
        self._clock = clock
        if clock is not None:
            self.reader.stopping = Ticking(clock)

    def _on_frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        if self._clock is not None:
            self.arrived_ns.append(self._clock.now_ns())
        self.slow(frame)

    def run(self, seconds: float = 20.0) -> Camera:
        """Start, and wait for the thread to end by itself."""
        self.reader.start()
        self.reader._thread.join(seconds)
        assert not self.reader._thread.is_alive()
        return self

    @property
    def statuses(self) -> list[str]:
        return [status for status, _ in self.told]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Scripted(Source):
    """A source that gives `frames`, taking `seconds` of virtual time for each, and then fails or ends."""

    def __init__(self, frames: int, clock: VirtualClock, live: bool = True, error: str = "") -> None:
        self._script = (frames, clock, error)
        self._live = live

    def __iter__(self):
        import numpy as np

        frames, clock, error = self._script
        for index in range(frames):
            if self._live:
                clock.sleep(0.1)
            yield Frame(index, index * 0.1, np.zeros((4, 6, 3), np.uint8), index)
        if error:
            raise SourceError(error)

    def close(self) -> None:
        pass

    @property
    def live(self) -> bool:
        return self._live


@pytest.fixture
def clip(tmp_path):
    return str(write_video(tmp_path / "clip.mp4", frames=20))


def test_a_file_plays_at_its_own_rate_and_ends(clip):
    camera = Camera(clip, clock=VirtualClock()).run()
    assert camera.arrived_ns == [round(number * NS / 25) for number in range(20)]
    assert [frame.index for frame in camera.frames] == list(range(20))
    assert camera.told == [("connecting", "opening"), ("live", ""), ("ended", "end of the recording after 20 frames")]
    status = camera.reader.status
    assert (status.status, status.frames, status.corrupt, status.width, status.height) == ("ended", 20, 0, 64, 48)


@pytest.mark.parametrize(("rate", "period"), [(10, 0.1), (100, 0.01), ("max", 0.0)])
def test_other_rates(clip, rate, period):
    camera = Camera(clip, Pace(rate=rate), VirtualClock()).run()
    assert camera.arrived_ns == [to_ns(number * period) for number in range(20)]


@pytest.mark.parametrize("rate", [0, -1, 1001, float("nan"), "fast"])
def test_impossible_rates(rate):
    with pytest.raises(ConfigError, match="at most 1000 frames per second, or 'max'"):
        Pace(rate=rate)


def test_a_url_that_can_never_work_is_refused_at_once():
    with pytest.raises(ConfigError, match="did you mean 'rtsp'"):
        Camera("rstp://x/y")


def test_a_short_delay_is_caught_up_with_and_a_long_one_forgotten(clip):
    clock = VirtualClock()
    camera = Camera(clip, Pace(rate=10), clock)
    camera.slow = lambda frame: clock.sleep({4: 0.35, 10: 3.0}.get(frame.index, 0.0))
    camera.run()
    tenths = [round(at / NS * 10, 3) for at in camera.arrived_ns]
    assert tenths[:5] == [0, 1, 2, 3, 4]
    assert tenths[5:8] == [7.5, 7.5, 7.5]  # frames 5 to 7 were due meanwhile
    assert tenths[8:11] == [8, 9, 10]  # back on the first schedule
    assert tenths[11:14] == [40, 41, 42]  # after three seconds there is a new one


@given(st.lists(st.integers(0, 3 * NS), min_size=1, max_size=60), st.integers(NS // 1000, NS))
def test_a_schedule_neither_runs_ahead_nor_falls_behind(delays, period):
    schedule, now, released = Schedule(period), 0, []
    for delay in delays:
        now += schedule.wait_ns(now)
        released.append(now)
        now += delay
    for first in range(len(released)):
        for later in range(first + 1, min(first + 5, len(released))):
            # Bursts pay back at most the second that may be owed.
            assert released[later] - released[first] >= (later - first) * period - NS
    if max(delays) <= period:
        assert released == [number * period for number in range(len(released))]


def test_the_back_off_doubles_up_to_half_a_minute():
    assert [retry_seconds(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert retry_seconds(10**6) == 30


def script(monkeypatch, sources):
    waiting = iter(sources)

    def opened(url, loop):
        source = next(waiting)
        if isinstance(source, Exception):
            raise source
        return source

    monkeypatch.setattr("edgeward.vision.reader.open_source", opened)


def test_retries_back_off_and_start_over_after_ten_good_seconds(monkeypatch):
    clock = VirtualClock()
    camera = Camera("rtsp://camera/x", clock=clock)
    broken = SourceError("no route")
    script(
        monkeypatch,
        [broken, broken, Scripted(50, clock, error="cut"), broken, Scripted(150, clock, error="cut"), broken]
        + [Scripted(3, clock), Scripted(2, clock, live=False)],
    )
    camera.run()
    assert camera.reader.stopping.waits[:7] == [0.5, 1, 2, 4, 0.5, 1, 2]
    assert camera.statuses == [
        *("connecting", "retrying", "retrying", "live", "retrying", "retrying"),
        *("live", "retrying", "retrying", "live", "retrying", "live", "ended"),
    ]
    assert ("retrying", "cut; next try in 2 s") in camera.told
    assert ("retrying", "the stream ended; next try in 2 s") in camera.told
    assert [frame.index for frame in camera.frames] == list(range(205))
    times = [frame.time for frame in camera.frames]
    assert times == sorted(set(times))
    # The five seconds of frames, then 2 s + 4 s of back-off: the time that was lost counts.
    assert times[50] - times[49] == pytest.approx(6.1, abs=0.01)
    assert [frame.content_index for frame in camera.frames[:203]] == list(range(203))
    assert [frame.content_index for frame in camera.frames[203:]] == [0, 1], "a recording keeps its own numbers"


def test_a_bug_below_costs_a_retry_and_not_the_camera(monkeypatch, caplog):
    clock = VirtualClock()
    camera = Camera("rtsp://camera/x", clock=clock)
    script(monkeypatch, [ValueError("rtsp://u:secret@camera"), Scripted(2, clock, live=False)])
    camera.run()
    assert camera.told[1] == ("retrying", "ValueError while reading; next try in 0.5 s")
    assert camera.statuses[-1] == "ended"


def test_a_consumer_that_fails_costs_a_retry(clip):
    camera = Camera(clip, Pace(rate="max"), VirtualClock())

    def fail_once(frame):
        if len(camera.frames) == 1:
            raise RuntimeError("boom")

    camera.slow = fail_once
    camera.run()
    assert camera.statuses == ["connecting", "live", "retrying", "live", "ended"]
    assert [frame.index for frame in camera.frames] == list(range(21))
    assert [frame.content_index for frame in camera.frames] == [0, *range(20)]


def test_a_missing_file_is_waited_for(tmp_path):
    clock = VirtualClock()
    camera = Camera(str(tmp_path / "late.mp4"), Pace(rate="max"), clock)

    def deliver(timeout):
        write_video(tmp_path / "late.mp4", frames=5)
        return False

    camera.reader.stopping.wait = deliver
    camera.run()
    assert camera.statuses == ["connecting", "retrying", "live", "ended"]
    assert "No such file" in camera.told[1][1]


def test_a_loop_never_ends_by_itself(clip):
    camera = Camera(clip, Pace(rate="max", loop=True))
    camera.reader.start()
    until(lambda: len(camera.frames) > 70)
    assert camera.reader.stop()
    indices = [frame.index for frame in camera.frames]
    assert indices == list(range(len(indices)))
    assert [frame.content_index for frame in camera.frames] == [index % 20 for index in indices]
    assert camera.reader.status.status == "ended"
    assert camera.statuses == ["connecting", "live"], "nothing is told after a stop"


def test_an_unreachable_camera_delays_no_other():
    dead = Camera(f"rtsp://admin:hunter22@127.0.0.1:{free_port()}/x")
    silent_peer = SilentPeer()
    silent = Camera(f"http://127.0.0.1:{silent_peer.port}/x")
    good = Camera("test://people?frames=50&width=64&height=48&fps=50")
    for camera in (dead, silent, good):
        camera.reader.start()
    until(lambda: good.statuses[-1:] == ["ended"])
    assert len(good.frames) == 50
    until(lambda: dead.statuses.count("retrying") >= 2)
    assert "Connection refused; next try in 1 s" in dead.told[-1][1]
    assert "hunter22" not in str(dead.told)
    assert silent.statuses == ["connecting"]
    for camera in (dead, silent, good):
        camera.reader.stop(0.1)
    silent_peer.close()


@pytest.mark.parametrize("kind", [HttpCamera, RtspCamera])
def test_a_camera_that_dies_and_returns(kind):
    port = free_port()
    first = kind(port, fps=40)
    camera = Camera(first.url)
    camera.reader.start()
    until(lambda: len(camera.frames) >= 10)
    first.close()
    until(lambda: camera.statuses[-1] == "retrying")
    lost = len(camera.frames)
    second = kind(port, fps=40)
    until(lambda: len(camera.frames) >= lost + 10)
    assert camera.reader.status.status == "live"
    camera.reader.stop()
    second.close()
    assert camera.statuses[0] == "connecting"
    assert camera.statuses[-1] == "live"
    assert [frame.index for frame in camera.frames] == list(range(len(camera.frames)))
    times = [frame.time for frame in camera.frames]
    assert times == sorted(set(times))
    assert number_of(camera.frames[lost].image) == 0, "the camera itself began again"
    assert "secret" not in str(camera.told)


def stopped(camera: Camera, seconds: float = 10.0) -> tuple[bool, float]:
    begun = time.monotonic()
    ended = camera.reader.stop(seconds)
    return ended, time.monotonic() - begun


def test_stopping_while_pacing(clip):
    camera = Camera(clip, Pace(rate=0.05))
    camera.reader.start()
    until(lambda: len(camera.frames) == 1)
    ended, seconds = stopped(camera)
    assert ended
    assert seconds < 3
    assert camera.reader.status.detail == "stopped"


def test_stopping_while_backing_off():
    camera = Camera(f"rtsp://127.0.0.1:{free_port()}/x")
    camera.reader.start()
    until(lambda: camera.statuses.count("retrying") == 3)
    ended, seconds = stopped(camera)
    assert ended
    assert seconds < 1.5
    assert camera.reader.status.status == "ended"
    assert "Connection refused" in camera.reader.status.detail, "why it had failed is not forgotten"


def test_stopping_while_a_network_read_blocks():
    peer = HttpCamera(free_port(), frames=12)
    camera = Camera(peer.url)
    camera.reader.start()
    until(lambda: len(camera.frames) == 12)
    _, seconds = stopped(camera)
    assert seconds < 3
    peer.close()  # ends the read
    camera.reader._thread.join(8)
    assert not camera.reader._thread.is_alive()
    assert len(camera.frames) == 12


def test_stopping_while_connecting():
    with socket.create_server(("127.0.0.1", 0)) as peer:
        camera = Camera(f"rtsp://127.0.0.1:{peer.getsockname()[1]}/x")
        camera.reader.start()
        time.sleep(0.1)
        ended, seconds = stopped(camera)
        assert not ended, "FFmpeg cannot be woken; the thread is left to its time limit"
        assert seconds < 3, "so there is nothing to wait for"


def test_stopping_while_the_consumer_blocks(clip):
    camera = Camera(clip, Pace(rate="max"))
    camera.slow = lambda frame: camera.reader.stopping.wait(30) and None
    camera.reader.start()
    until(lambda: len(camera.frames) == 1)
    ended, seconds = stopped(camera)
    assert ended
    assert seconds < 3
    assert len(camera.frames) == 1


def test_stopping_before_starting_and_twice(clip):
    camera = Camera(clip)
    assert stopped(camera)[0]
    camera.run()
    assert stopped(camera)[0]
    assert camera.frames == camera.told == []


def test_a_consumer_that_fails_costs_a_retry_and_no_number_twice(clip):
    camera = Camera(clip, Pace(rate="max"), VirtualClock())

    def fail_once(frame: Frame) -> None:
        if frame.index == 3:
            raise RuntimeError("boom")

    camera.slow = fail_once
    camera.run()
    assert camera.statuses == ["connecting", "live", "retrying", "live", "ended"]
    assert [frame.index for frame in camera.frames] == list(range(24))
    assert [frame.content_index for frame in camera.frames] == [*range(4), *range(20)]


def test_a_consumer_that_blocks_slows_a_recording_without_loss(clip):
    camera = Camera(clip, Pace(rate="max"))
    camera.slow = lambda frame: time.sleep(0.005)
    camera.run()
    assert [frame.index for frame in camera.frames] == list(range(20))
