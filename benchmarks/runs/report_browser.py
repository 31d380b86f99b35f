"""Opens an HTML report in headless Chromium, types into its search, and says how long the list took; takes pictures on request.

    python -m benchmarks.runs.report_browser runs/demo/report.html [--at-most 200] [--shots /tmp/shots]

Prints JSON: milliseconds from each keystroke until the list was painted, what the console and the network saw, and whether the
page scrolls sideways on a phone. Exit code 1 when the median keystroke took longer than --at-most (milliseconds); 3 when there
is no Chromium (Debian: apt install chromium; or name one in $CHROMIUM).
The browser is spoken to over its DevTools socket; nothing but `websockets` is needed.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NO_CHROMIUM = 3
QUERIES = ("refund", "the invoice", "near_duplicate", "zzz-no-such-text", "e")
START_S, ANSWER_S = 60, 60
PIECE_PX, MOST_PIECES = 1200, 5
SIZES = {"light": (1280, 900, False), "dark": (1280, 900, False), "phone": (390, 844, True), "phone-dark": (390, 844, True)}

# A keystroke's time ends after the frame that shows its list: a task queued in a frame runs when that has been drawn.
WATCH = """
window.seen = {typed: 0, took: []};
const query = document.getElementById("query"), lines = document.getElementById("lines");
query.addEventListener("input", () => { seen.typed = performance.now(); }, {capture: true});
new MutationObserver(() => {
  const typed = seen.typed;
  requestAnimationFrame(() => setTimeout(() => seen.took.push(performance.now() - typed)));
}).observe(lines, {childList: true});
"""


def chromium() -> str | None:
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if name and (path := shutil.which(name))), None)


class Browser:
    """One tab. Events that came while an answer was waited for are kept in `events`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number, self._session = socket, 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            told = json.loads(self._socket.recv(timeout=ANSWER_S))
            if told.get("id") == self._number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']['message']}")
                return dict(told["result"])
            self.events.append(told)

    def evaluate(self, source: str) -> Any:
        told = self.call("Runtime.evaluate", expression=source, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(f"{source}: {told['exceptionDetails']}")
        return told["result"].get("value")

    def open(self, page: Path, *, width: int, height: int, mobile: bool, scheme: str) -> None:
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        scale = 2 if mobile else 1
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)
        self.call("Page.navigate", url=page.resolve().as_uri())
        wait_for(self, "document.readyState === 'complete'")


def wait_for(browser: Browser, condition: str) -> None:
    end = time.monotonic() + ANSWER_S
    while not browser.evaluate(condition):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {ANSWER_S} s: {condition}")
        time.sleep(0.02)


@contextmanager
def browser(path: str) -> Iterator[Browser]:
    """A Chromium of our own with an empty profile; it is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="report-browser-", ignore_cleanup_errors=True) as profile:
        flags = [
            "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run", "--disable-gpu",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        ]  # fmt: skip
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium's sandbox refuses to run as root
        process = subprocess.Popen([path, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_address(Path(profile), process), max_size=None) as socket:
                yield Browser(socket)
                socket.send(json.dumps({"id": 0, "method": "Browser.close"}))
            process.wait(timeout=10)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    told, end = profile / "DevToolsActivePort", time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        lines = told.read_text().splitlines() if told.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.1)
    raise RuntimeError(f"Chromium did not start (exit code {process.poll()})")


def search(tab: Browser, text: str) -> list[float]:
    """Type the text key by key, each after the list of the one before stands; milliseconds from each key to its list."""
    tab.evaluate("(() => { const q = document.getElementById('query'); q.focus(); q.select(); seen.took = []; })()")
    for at, letter in enumerate(text, 1):
        tab.call("Input.insertText", text=letter)
        wait_for(tab, f"seen.took.length >= {at}")
    shown = tab.evaluate("document.getElementById('lines').dataset.query")
    assert shown == text, f"the list is of {shown!r}, not of {text!r}"
    return [float(took) for took in tab.evaluate("seen.took")]


def complaints(events: list[dict[str, Any]]) -> list[str]:
    found = []
    for event in events:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            found.append(str(params["exceptionDetails"].get("exception", {}).get("description") or params["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled":
            found.append(f"console.{params['type']}: {[arg.get('value') for arg in params['args']]}")
        elif event.get("method") == "Log.entryAdded":
            found.append(f"{params['entry']['level']}: {params['entry']['text']}")
    return found


def requests(events: list[dict[str, Any]], page: Path) -> list[str]:
    """What was asked for beside the page itself and data: URLs."""
    urls = [e["params"]["request"]["url"] for e in events if e.get("method") == "Network.requestWillBeSent"]
    return [url for url in urls if url != page.resolve().as_uri() and not url.startswith("data:")]


def look(tab: Browser, page: Path, shots: Path | None) -> dict[str, Any]:
    told: dict[str, Any] = {"scrolls_sideways": {}, "search_ms": {}}
    for name, (width, height, mobile) in SIZES.items():
        tab.open(page, width=width, height=height, mobile=mobile, scheme="dark" if "dark" in name else "light")
        extent = tab.evaluate("document.documentElement.scrollWidth")
        told["scrolls_sideways"][name] = extent > width
        if shots is not None:
            pictures(tab, shots, f"{page.stem}-{name}", width)
    told["title"] = tab.evaluate("document.title")
    width, height, mobile = SIZES["light"]
    tab.open(page, width=width, height=height, mobile=mobile, scheme="light")
    told["rows"] = tab.evaluate("JSON.parse(document.getElementById('explorer-data').textContent).rows.length")
    if tab.evaluate("document.getElementById('query') !== null"):
        tab.evaluate(WATCH)
        told["search_ms"] = {text: [round(ms, 1) for ms in search(tab, text)] for text in QUERIES}
        every = [ms for took in told["search_ms"].values() for ms in took]
        told["search_ms_median"], told["search_ms_most"] = statistics.median(every), max(every)
    return told


def pictures(tab: Browser, shots: Path, name: str, width: int) -> None:
    """The page's beginning in pieces that can be looked at."""
    # In a window as high as the pictures: a browser leaves out what is far outside of it.
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=PIECE_PX * MOST_PIECES, deviceScaleFactor=0, mobile=False)
    height = tab.evaluate("document.documentElement.scrollHeight")
    for piece in range(min(MOST_PIECES, math.ceil(height / PIECE_PX))):
        top = piece * PIECE_PX
        clip = {"x": 0, "y": top, "width": width, "height": min(PIECE_PX, height - top), "scale": 1}
        told = tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        (shots / f"{name}-{piece + 1}.png").write_bytes(base64.b64decode(told["data"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--shots", type=Path, help="folder for the pictures")
    parser.add_argument("--at-most", type=float, metavar="MS", help="asked of the median keystroke")
    given = parser.parse_args()
    found = chromium()
    if found is None:
        print("no Chromium found: apt install chromium, or name one in $CHROMIUM", file=sys.stderr)
        sys.exit(NO_CHROMIUM)
    if given.shots is not None:
        given.shots.mkdir(parents=True, exist_ok=True)
    with browser(found) as tab:
        version = tab.call("Browser.getVersion")["product"]
        told = look(tab, given.report, given.shots)
        told |= {"console": complaints(tab.events), "requests": requests(tab.events, given.report)}
    about = {"chromium": version, "machine": platform.platform(), "cores": os.cpu_count(), "command": sys.argv}
    print(json.dumps(told | about, indent=1))
    if given.at_most is not None and told["search_ms_median"] > given.at_most:
        sys.exit(1)


if __name__ == "__main__":
    main()
