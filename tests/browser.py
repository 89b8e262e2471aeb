"""A headless Chromium that tests open pages with: over its pipe, without a driver or any package."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a page that needs another host has a problem
)
# A phone lays out a page that does not ask for its width as one of 980 pixels.
_FAULTS = """(asked => {
  const loaded = image => image.complete && image.naturalWidth > 0;
  const broken = [...document.images].filter(image => image.checkVisibility() && !loaded(image))
    .map(image => `picture not loaded: ${image.src.slice(0, 120)}`);
  const [wide, window] = [document.documentElement.scrollWidth, document.documentElement.clientWidth];
  return wide > window || window > asked ? [...broken, `${Math.max(wide, window)} pixels wide, not ${asked}`] : broken;
})"""

_KEYS = {"Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}  # Windows' codes


class Page:
    """One tab. Problems are console errors, exceptions, and requests that failed, since the last `open`."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out = into, out
        self._count = 0
        self._session: str | None = None
        self._rest = b""
        self._loaded = False
        self._width = 0
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and wait for its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(seconds=60)
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next message, whose event is recorded; {} if none comes in time."""
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            if not select.select([self._out], [], [], max(end - time.monotonic(), 0))[0]:
                return {}
            chunk = os.read(self._out, 1 << 20)
            assert chunk, "the browser ended"
            self._rest += chunk
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        self._record(message.get("method"), message.get("params", {}))
        return message

    def _record(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.problems.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.problems.append(f"{params['errorText']}: {params['type']}")

    def wait(self, seconds: float) -> None:
        """Let the page go on, and take what it reports."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._receive(left)

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Open `url` in a window of this size, and wait until it has loaded and settled."""
        self.problems.clear()
        self._width = width
        self._loaded = False
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=url)
        end = time.monotonic() + 60
        while not self._loaded:
            assert time.monotonic() < end, f"{url} has not loaded after 60 s"
            self._receive(seconds=1)
        self.wait(0.5)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """The value of an expression as soon as it is neither false nor empty."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"{expression} is {value!r} after {seconds} s"
            self.wait(0.2)
        return value

    def press(self, *keys: str) -> None:
        """Press keys of the keyboard, such as `Tab` and `ArrowLeft`."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            code = _KEYS.get(key, 0)
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def tap(self, x: float, y: float) -> None:
        """Tap the screen at this place."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.wait(0.5)

    def faults(self) -> list[str]:
        """What is wrong with the page: problems, pictures that are not loaded, and a page wider than its window."""
        return [*self.problems, *self.evaluate(f"{_FAULTS}({self._width})")]

    def screenshot(self, path: Path, quality: int | None = None) -> None:
        """Write what the window shows: a PNG, or a JPEG of this quality."""
        options = {"format": "jpeg", "quality": quality} if quality else {"format": "png"}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser that keeps its files in `profile`."""
    assert CHROMIUM is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Chromium reads from file 3 and writes to file 4; numbers from 10 on are not in the way of these.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
    for end in (theirs_in, theirs_out):
        os.close(end)
    command = ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash", CHROMIUM, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [*command, *_OPTIONS], pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for end in ends:
        os.close(end)
    try:
        yield Page(ours_out, ours_in)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_out)
        os.close(ours_in)
