"""A headless Chromium, driven over the DevTools protocol: real input, and a log of all that the page asked for.

Over a WebSocket, which websocket-client speaks and which is here with other packages anyway; Selenium would bring six more, and
Debian's chromium-driver, to say the same to the same browser, and has no log of the network but this protocol's.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import websocket

BINARIES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27}
WAIT_S = 120.0


def binary() -> str | None:
    """A browser that is installed, Debian's first."""
    return next((found for name in BINARIES if (found := shutil.which(name))), None)


class Browser:
    """One window of a browser of its own, that can reach 127.0.0.1 alone."""

    def __init__(self, program: str, folder: Path, width: int = 1280, height: int = 860) -> None:
        self.events: list[dict[str, Any]] = []
        self._number = 0
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            self._socket = websocket.create_connection(self._window(), timeout=WAIT_S, suppress_origin=True)
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.ask(f"{domain}.enable")
            self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
            self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it, with all that it started: Debian's program is a script, and the browser its child."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Say one thing to the browser; gives its answer. What it tells meanwhile is kept in `events`."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self.events.append(message)

    def js(self, expression: str) -> Any:
        """The value of an expression on the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression on the page is true."""
        end = time.monotonic() + WAIT_S
        while not self.js(expression):
            assert time.monotonic() < end, f"never true: {expression}; the page said {self.complaints()}"
            time.sleep(0.05)

    def open(self, url: str, ready: str) -> None:
        """Go to a page, and wait until an expression on it is true."""
        self.ask("Page.navigate", url=url)
        self.wait(ready)

    def hover(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Click the left button."""
        self.hover(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name: str) -> None:
        """Press a key of KEYS."""
        text = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            sent = text if kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=KEYS[name], **sent)

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def requested(self) -> list[str]:
        """The address of everything that the page asked for."""
        return [event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[Any]:
        """Errors of scripts, what the page's policy stopped, and answers that were errors."""
        thrown = [event["params"] for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        logged = [event["params"]["entry"] for event in self.events if event["method"] == "Log.entryAdded"]
        return thrown + [entry for entry in logged if entry["level"] in ("error", "warning")]

    def _window(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"DevTools listening on ws://([\d.]+:\d+)/", line):
                break
        else:
            raise RuntimeError("the browser ended")
        threading.Thread(target=self._process.stderr.read, daemon=True).start()
        with urllib.request.urlopen(f"http://{found[1]}/json/list", timeout=WAIT_S) as answer:
            windows = json.loads(answer.read())
        return str(next(window["webSocketDebuggerUrl"] for window in windows if window["type"] == "page"))
