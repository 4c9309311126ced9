"""A camera's thread: pace, back-off, reconnection, and stopping promptly whatever it is doing."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vision_camera import HttpCamera, SilentPeer, free_port
from vision_makevideo import number_of, write_video

from edgeward.clock import NS, to_ns
from edgeward.errors import ConfigError
from edgeward.vision.reader import CameraReader, Pace, Schedule, retry_seconds

PEOPLE = "test://people?width=64&height=48&objects=1&frames={frames}&fps={fps}"


class Watched:
    """A reader whose frames and statuses are kept."""

    def __init__(self, url, pace=Pace(), on_frame=None):  # noqa: B008 - frozen
        self.frames, self.times, self.told = [], [], []
        self._on_frame = on_frame
        self.reader = CameraReader("cam", str(url), self._frame, lambda *told: self.told.append(told), pace)

    def _frame(self, frame):
        self.times.append(time.monotonic())
        self.frames.append(frame)
        if self._on_frame is not None:
            self._on_frame(frame)

    @property
    def status(self):
        return self.reader.status.status

    def until(self, true, seconds=20.0):
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, (self.reader.status, self.told)
            time.sleep(0.01)

    def __enter__(self):
        self.reader.start()
        return self

    def __exit__(self, *_):
        self.reader.stop(5)


def played(url, pace=Pace("max")):  # noqa: B008 - frozen
    with Watched(url, pace) as watched:
        watched.until(lambda: watched.status == "ended")
    return watched


def rising(frames):
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(later.time > earlier.time for earlier, later in zip(frames, frames[1:], strict=False))


def test_a_file_is_played_once_and_then_has_ended(tmp_path):
    path = write_video(tmp_path / "clip.mp4", frames=30)
    watched = played(path)
    assert [number_of(frame.image) for frame in watched.frames] == [n % 16 for n in range(30)]
    rising(watched.frames)
    assert [status for status, _ in watched.told] == ["connecting", "live", "ended"]
    assert "30 frames" in watched.told[-1][1]
    status = watched.reader.status
    assert (status.frames, status.corrupt, status.width, status.height) == (30, 0, 64, 48)


def test_a_looped_file_goes_on(tmp_path):
    path = write_video(tmp_path / "clip.mp4", frames=10)
    with Watched(path, Pace("max", loop=True)) as watched:
        watched.until(lambda: len(watched.frames) >= 35)
    rising(watched.frames)
    assert [frame.content_index for frame in watched.frames[:35]] == [n % 10 for n in range(35)]


@pytest.mark.parametrize(("pace", "fps"), [(Pace(), 50), (Pace(100), 100)])
def test_a_recording_is_played_at_its_own_rate_or_the_given_one(pace, fps):
    watched = played(PEOPLE.format(frames=51, fps=50), pace)
    assert len(watched.frames) == 51
    assert watched.times[-1] - watched.times[0] == pytest.approx(50 / fps, abs=0.25)


def test_lateness_does_not_add_up():
    """A consumer that takes 15 of the 20 ms between frames, and once 200 ms, ends on the schedule."""
    slow = Watched(
        PEOPLE.format(frames=61, fps=50), on_frame=lambda frame: time.sleep(0.2 if frame.index == 5 else 0.015)
    )
    with slow:
        slow.until(lambda: slow.status == "ended")
    assert slow.times[-1] - slow.times[0] == pytest.approx(60 / 50, abs=0.2)


@given(st.lists(st.floats(0, 0.9), max_size=50), st.sampled_from([1.0, 25.0, 60.0]))
def test_the_schedule_never_drifts(delays, fps):
    """Whatever happens between frames, each is out at its time, or at once when that has passed by under a second."""
    schedule, period, now = Schedule(to_ns(1 / fps)), to_ns(1 / fps), 0
    due = 0
    for delay in delays:
        late = now - due > NS
        due = now if late else due
        out = now + schedule.wait_ns(now)
        assert out == max(now, due)
        due += period
        now = out + to_ns(delay)


def test_the_schedule_starts_anew_after_more_than_a_second():
    schedule = Schedule(NS // 10)
    assert schedule.wait_ns(0) == 0
    assert schedule.wait_ns(5 * NS) == 0
    assert schedule.wait_ns(5 * NS) == NS // 10


def test_backing_off_doubles_up_to_half_a_minute():
    assert [retry_seconds(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert retry_seconds(10_000) == 30


@pytest.mark.parametrize("rate", [0, -1, 1001, float("nan"), float("inf"), "fast"])
def test_a_rate_that_makes_no_sense_is_refused(rate):
    with pytest.raises(ConfigError, match="at most 1000 frames per second, or 'max'"):
        Pace(rate)


def test_a_wrong_url_is_found_when_the_reader_is_made():
    with pytest.raises(ConfigError, match="did you mean 'rtsp'"):
        Watched("rstp://camera/live")
    with pytest.raises(ConfigError, match="did you mean 'frames'"):
        Watched("test://people?frame=3")


def test_a_file_that_appears_later_is_played(tmp_path):
    path = tmp_path / "late.mp4"
    with Watched(path, Pace("max")) as watched:
        watched.until(lambda: watched.status == "retrying")
        assert "late.mp4" in watched.reader.status.detail
        assert "No such file" in watched.reader.status.detail
        write_video(path, frames=5)
        watched.until(lambda: watched.status == "ended")
    assert len(watched.frames) == 5


def test_an_unreachable_camera_backs_off_and_another_runs_unharmed():
    with (
        Watched(f"rtsp://admin:hunter22@127.0.0.1:{free_port()}/live") as dead,
        Watched(PEOPLE.format(frames=90, fps=50)) as good,
    ):
        good.until(lambda: good.status == "ended")
    assert good.times[-1] - good.times[0] == pytest.approx(89 / 50, abs=0.25)
    waits = [detail.rpartition("next try in ")[2] for status, detail in dead.told if status == "retrying"]
    assert waits[:2] == ["0.5 s", "1 s"]
    assert dead.reader.status.detail
    assert "hunter22" not in str(dead.told)


def test_a_camera_that_dies_comes_back():
    camera = HttpCamera(free_port())
    with Watched(camera.url) as watched:
        watched.until(lambda: len(watched.frames) > 10)
        camera.close()
        watched.until(lambda: watched.status == "retrying")
        before = len(watched.frames)
        camera = HttpCamera(camera.port)
        watched.until(lambda: len(watched.frames) > before + 10)
        camera.close()
    rising(watched.frames)
    assert [frame.content_index for frame in watched.frames] == list(range(len(watched.frames)))
    assert watched.frames[before].time - watched.frames[before - 1].time > 0.4, "the time that was lost counts"
    assert [status for status, _ in watched.told][:4] == ["connecting", "live", "retrying", "live"]
    assert "secret" not in str(watched.told)


def stopped_within(watched, timeout=1.0):
    began = time.monotonic()
    ended = watched.reader.stop(timeout)
    assert time.monotonic() - began < 0.9
    return ended


def test_stopping_before_starting_and_twice():
    watched = Watched(PEOPLE.format(frames=5, fps=25))
    assert watched.reader.stop(1)
    watched.reader.start()
    assert watched.reader.stop(1)
    assert watched.reader.stop(1)
    assert watched.frames == []
    assert watched.told == []


def test_stopping_while_pacing_and_while_backing_off(tmp_path):
    with Watched(PEOPLE.format(frames=5, fps=0.1)) as pacing, Watched(tmp_path / "gone.mp4") as waiting:
        pacing.until(lambda: len(pacing.frames) == 1)
        waiting.until(lambda: any("in 1 s" in detail for _, detail in waiting.told))
        assert stopped_within(pacing)
        assert stopped_within(waiting)
    assert len(pacing.frames) == 1


def test_stopping_while_the_consumer_blocks():
    entered = threading.Event()

    def block(frame):
        entered.set()
        blocked.reader.stopping.wait()

    blocked = Watched(PEOPLE.format(frames=5, fps=25), on_frame=block)
    with blocked:
        assert entered.wait(5)
        assert stopped_within(blocked)
    assert len(blocked.frames) == 1


def test_stopping_while_a_peer_is_silent():
    peer, quiet = SilentPeer(), HttpCamera(free_port(), frames=12)
    with Watched(f"rtsp://127.0.0.1:{peer.port}/live") as opening, Watched(quiet.url) as reading:
        reading.until(lambda: len(reading.frames) >= 8)
        time.sleep(0.3)
        seen = len(reading.frames), len(opening.told), len(reading.told)
        stopped_within(opening)
        stopped_within(reading)
        quiet.close()
        peer.close()
        opening.until(lambda: not opening.reader.running)
        reading.until(lambda: not reading.reader.running)
    assert (len(reading.frames), len(opening.told), len(reading.told)) == seen, "nothing more comes once stopped"


def test_a_consumer_that_fails_is_told_of_again():
    """A bug in the consumer costs a retry, not the camera."""
    failed = []

    def fail_once(frame):
        if not failed:
            failed.append(frame)
            raise RuntimeError("boom")

    with Watched(PEOPLE.format(frames=8, fps=100), Pace("max"), on_frame=fail_once) as watched:
        watched.until(lambda: watched.status == "ended")
    assert "RuntimeError" in str(watched.told)
    assert len(watched.frames) == 9
    rising(watched.frames)
    assert [frame.content_index for frame in watched.frames] == [0, *range(8)]
