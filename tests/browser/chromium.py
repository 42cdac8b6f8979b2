"""Drives Debian's chromium by its DevTools protocol: opens pages, clicks and types as people do."""

import asyncio
import itertools
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.patience import WAIT_S, until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no chromium on this machine: apt-get install chromium"
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--remote-debugging-port=0", "--window-size=900,900"),
)


def find_chromium() -> str | None:
    """Return the path of the browser; None where this machine has none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Browser:
    """One tab of a browser."""

    socket: aiohttp.ClientWebSocketResponse
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def open(self, url: str) -> None:
        """Open a page and wait until it is there."""
        await self.command("Page.navigate", url=url)
        await self.wait_for(f"document.readyState === 'complete' && location.href === {url!r}", url)

    async def text(self) -> str:
        """Return the text that a person reads on the page."""
        return str(await self.evaluate("document.body.innerText"))

    async def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element."""
        place = await self.evaluate(
            f"(() => {{const one = document.querySelector({selector!r});"
            "one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect();"
            "return {x: box.x + box.width / 2, y: box.y + box.height / 2}})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place
            )

    async def type(self, selector: str, text: str) -> None:
        """Click into a field and type."""
        await self.click(selector)
        await self.command("Input.insertText", text=text)

    async def choose(self, selector: str, value: str) -> None:
        """Choose from a list; a headless browser shows no list that could be clicked."""
        await self.evaluate(f"document.querySelector({selector!r}).value = {value!r}")

    async def wait_for(self, condition: str, what: str) -> None:
        """Wait until JavaScript is true, also while the page changes."""

        async def is_so() -> bool:
            return bool(await self.evaluate(f"!!document.body && ({condition})"))

        await until(is_so, what)

    async def evaluate(self, script: str) -> Any:
        """Return the value of JavaScript on the page; None while the page changes."""
        found = await self.command("Runtime.evaluate", expression=script, returnByValue=True)
        return found.get("result", {}).get("value")

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; empty where the page went away meanwhile."""
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(WAIT_S):
            while True:
                message = json.loads((await self.socket.receive()).data)
                if message.get("id") == number:
                    found: dict[str, Any] = message.get("result", {})
                    return found


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Browser]:
    """Run a browser with an empty profile; its only tab."""
    program = find_chromium()
    assert program is not None, MISSING
    child = await asyncio.create_subprocess_exec(
        *(program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        noted = folder / "DevToolsActivePort"
        await until(lambda: noted.exists() and noted.read_text().strip(), "chromium listens")
        address = f"http://127.0.0.1:{noted.read_text().split()[0]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{address}/json/list") as answer:
                tabs = [one for one in await answer.json() if one["type"] == "page"]
            url = tabs[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=0) as socket:
                yield Browser(socket)
    finally:
        child.send_signal(signal.SIGTERM)
        await child.wait()
