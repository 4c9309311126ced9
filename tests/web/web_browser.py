"""A headless Chromium, driven over its DevTools protocol: just what the page's tests need.

with Browser.open(tmp_path) as browser:
    browser.goto(url)
    browser.eval("document.title")
"""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]


def browser_path() -> str | None:
    """The first Chromium found, or None."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome"))
    return next((path for path in found if path), None)


class Browser:
    """One page. `problems` collects console errors, uncaught exceptions and refused resources."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 0
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: pathlib.Path) -> Iterator[Browser]:
        """Start a browser with its profile in `folder`."""
        executable = browser_path()
        assert executable
        process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = _page_address(folder / "DevToolsActivePort", process)
            with connect(address, max_size=None, open_timeout=20) as socket:
                yield cls(socket)
        finally:
            process.terminate()
            process.wait(10)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == self._last:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"]))[:500])
        elif message.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(str(params["args"])[:500])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def viewport(self, width: int, height: int, scale: float = 1, dark: bool = True) -> None:
        """Set the window, the pixel ratio and the preferred colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def goto(self, url: str) -> None:
        """Open a page and wait until it has loaded."""
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href.startsWith({url!r})")

    def eval(self, script: str) -> Any:
        """The JSON value of an expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{script}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 15.0) -> Any:
        """Wait for an expression to become true, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.eval(script)
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds} s: {script}; problems: {self.problems}")

    def screenshot(self, path: pathlib.Path, full: bool = False) -> None:
        """Save what is to be seen as PNG."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(picture["data"]))


def _page_address(port_file: pathlib.Path, process: subprocess.Popen[bytes]) -> str:
    """The WebSocket address of the browser's first page, once it has written its port."""
    import urllib.request

    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, StopIteration, IndexError):
            port = int(port_file.read_text().splitlines()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                pages = json.load(answer)
            return str(next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError(f"the browser did not start (exit {process.poll()})")
