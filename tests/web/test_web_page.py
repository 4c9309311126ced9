"""The page in a real browser: it shows what the box says, in both themes, on a phone, through a restart."""

from __future__ import annotations

import pytest
from web_browser import Browser, browser_path
from web_fakebox import MODELS, FakeBox

from edgeward.web.server import WebServer

pytestmark = pytest.mark.skipif(browser_path() is None, reason="no Chromium to test the page with")

LOADED = "document.querySelectorAll('.tile').length === 4 && document.querySelector('#queries tr') !== null"
COLOURS = """(() => {
  const shown = document.querySelector('%s');
  const canvas = new OffscreenCanvas(shown.width, shown.height);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(shown, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
  return seen.size;
})()"""
# WCAG contrast of every visible piece of text against the nearest background that is opaque.
LOW_CONTRAST = """(() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { rgb: [r, g, b], a }; };
  const lum = (rgb) => rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const under = (node) => {
    for (; node; node = node.parentElement) {
      const { rgb, a } = parse(getComputedStyle(node).backgroundColor);
      if (a > 0.7) return rgb;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = [];
  let checked = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility() || node.tagName === 'NOSCRIPT') continue;
    const [a, b] = [lum(parse(getComputedStyle(node).color).rgb), lum(under(node))].sort((p, q) => q - p);
    checked += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${walker.currentNode.textContent} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return { low, checked };
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser.open(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def served(browser):
    """A server over a moving box, the page open on a desktop, and no complaint in the console afterwards."""
    box = FakeBox()
    with WebServer(box, port=0) as server:
        browser.viewport(1280, 800)
        browser.goto(server.url)
        browser.problems.clear()
        browser.until(LOADED)
        yield box, server
        assert browser.problems == []
        browser.goto("about:blank")


def test_numbers_and_pictures_appear_and_move(browser, served):
    box, _ = served
    assert browser.until(COLOURS % ".tile canvas") > 50
    browser.until(f"({COLOURS % '#timeline'}) > 3")
    before = browser.eval(
        "[document.getElementById('uptime').textContent, document.querySelector('.figures').textContent]"
    )
    browser.until(f"document.getElementById('uptime').textContent !== {before[0]!r}")
    browser.until(f"document.querySelector('.figures').textContent !== {before[1]!r}")
    assert browser.eval("document.getElementById('status').textContent") == "Running"
    names = browser.eval("[...document.querySelectorAll('#queries th strong')].map((n) => n.textContent)")
    assert names == [query.name for query in box.report().queries]


def test_the_server_is_asked_for_few_frames(browser, served):
    box, _ = served
    browser.until(f"({COLOURS % '.tile canvas'}) > 50")
    before, start = box.encodes, box.now()
    browser.until("new Promise((done) => setTimeout(() => done(true), 2000))")
    live_cameras = 3
    assert box.encodes - before <= live_cameras * 8.5 * (box.now() - start) + live_cameras


def test_trouble_is_told_in_the_tile(browser, served):
    text = browser.until("document.querySelector('.trouble:not([hidden])')?.textContent")
    assert "Retrying" in text
    assert "Connection refused by 10.0.0.14:554" in text
    assert "Last frame" in text


def test_memory_widths_are_to_scale(browser, served):
    box, _ = served
    measured = browser.until("""(() => {
      const whole = document.getElementById('memory-bar').clientWidth;
      const shares = [...document.querySelectorAll('#memory-bar .share')];
      if (!shares.length || shares.some((n) => n.getAnimations().length)) return null;
      return shares.map((n) => [n.textContent, n.getBoundingClientRect().width / whole]);
    })()""")
    budget = box.report().memory.budget_bytes
    for name, fraction in measured:
        assert fraction == pytest.approx(MODELS[name][0] / budget, abs=0.01)
    rows = browser.eval(
        "[...document.querySelectorAll('#memory-models li')].map((n) => n.querySelector('.size').textContent)"
    )
    assert rows == ["18.2 MiB", "31.4 MiB", "12.6 MiB", "3.4 MiB"]


def test_hovering_the_time_line_tells_what_it_was(browser, served):
    browser.until(f"({COLOURS % '#timeline'}) > 3")
    text = browser.until("""(() => {
      const canvas = document.getElementById('timeline');
      const tip = document.getElementById('timeline-tip');
      for (let x = 20; x < canvas.clientWidth; x += 7) {
        const box = canvas.getBoundingClientRect();
        canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box.x + x, clientY: box.y + 30 }));
        if (!tip.hidden) return tip.textContent;
      }
      return null;
    })()""")
    assert text.startswith(("infer people-ssd · ", "wait people-ssd · "))
    assert " ms" in text


def test_an_event_picture_loads_and_older_events_can_be_had(browser, served):
    browser.until("[...document.querySelectorAll('#events img')].some((n) => n.complete && n.naturalWidth === 128)")
    before = browser.eval("document.querySelectorAll('#events li').length")
    browser.eval("document.getElementById('events-more').click()")
    browser.until(f"document.querySelectorAll('#events li').length >= {before + 50}")
    assert browser.eval("document.querySelectorAll('#events li').length") >= before + 50


def test_a_tile_can_be_enlarged_with_the_keyboard_and_closed(browser, served):
    browser.until(f"({COLOURS % '.tile canvas'}) > 50")
    browser.eval("document.querySelector('.tile').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
        )
    browser.until(f"document.getElementById('zoom').open && ({COLOURS % '#zoom-canvas'}) > 50")
    assert browser.eval("document.getElementById('zoom-canvas').width") > 900
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Escape", code="Escape", windowsVirtualKeyCode=27)
    browser.until("!document.getElementById('zoom').open")


def test_both_themes_are_legible_and_the_choice_lasts(browser, served):
    _, server = served
    background = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for dark in (True, False):
        browser.viewport(1280, 800, dark=dark)
        audit = browser.eval(LOW_CONTRAST)
        assert audit["low"] == []
        assert audit["checked"] > 80
        seen[dark] = browser.eval(background)
    assert seen[True] != seen[False]
    browser.eval("document.getElementById('theme').click()")
    assert browser.eval(background) == seen[True]
    browser.goto(server.url + "/?again")
    browser.until(LOADED)
    assert browser.eval(background) == seen[True]
    browser.eval("localStorage.clear()")


def overflowing(browser):
    """What reaches beyond the right edge of the window."""
    return browser.eval("""[...document.querySelectorAll('body *')].filter((n) => n.checkVisibility()
      && n.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5 && !n.closest('svg, .skip, thead'))
      .map((n) => `${n.tagName}.${n.className}`)""")


@pytest.mark.parametrize("width", [320, 390, 768, 901, 1024, 1440])
def test_no_width_needs_sideways_scrolling(browser, served, width):
    browser.viewport(width, 844, scale=2 if width < 600 else 1)
    browser.until(f"({COLOURS % '.tile canvas'}) > 50")
    assert overflowing(browser) == []
    assert browser.eval("document.documentElement.scrollWidth <= innerWidth")
    columns = browser.eval("new Set([...document.querySelectorAll('#cameras > li')].map((n) => n.offsetLeft)).size")
    assert columns == 1 if width < 600 else columns > 1


def test_a_restart_of_the_box_is_seen_and_survived(browser, served):
    box, server = served
    assert browser.eval("document.getElementById('banner').hidden")
    port = int(server.url.rsplit(":", 1)[1])
    server.stop()
    browser.until("!document.getElementById('banner').hidden")
    assert "Disconnected from the box" in browser.eval("document.getElementById('banner').textContent")
    assert browser.eval("document.getElementById('status').textContent") == "Disconnected"
    with WebServer(box, port=port):
        browser.until("document.getElementById('banner').hidden")
        uptime = browser.eval("document.getElementById('uptime').textContent")
        browser.until(f"document.getElementById('uptime').textContent !== {uptime!r}")
        browser.eval("1")
        browser.problems[:] = [
            text for text in browser.problems if "WebSocket connection" not in text and "ERR_" not in text
        ]


def test_hostile_names_are_inert(browser):
    mark = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    with WebServer(FakeBox(mark=mark), port=0) as server:
        browser.viewport(390, 844)
        browser.goto(server.url)
        browser.problems.clear()
        browser.until(LOADED)
        browser.until(f"({COLOURS % '.tile canvas'}) > 50")
        browser.until("document.querySelectorAll('#events li').length > 5")
        browser.eval("document.querySelector('.tile').click()")
        browser.until("document.getElementById('zoom').open")
        assert browser.eval("document.querySelector('.tile-name').textContent") == "gate" + mark
        assert browser.eval("window.hacked === undefined")
        assert browser.eval("document.querySelectorAll('img[src=x], body script').length") == 0
        browser.eval("document.getElementById('zoom').close()")
        for width in (390, 1280):
            browser.viewport(width, 844)
            assert overflowing(browser) == []
        assert browser.problems == []
        browser.goto("about:blank")
