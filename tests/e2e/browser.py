"""A real Chromium without a window, driven by its DevTools protocol over aiohttp, which textual-serve brings along."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE = 60.0
"""Seconds after which what a browser should do within one counts as failed."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root in a container, where Chromium's own sandbox cannot be made
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--use-angle=swiftshader",  # xterm draws with WebGL, and there is no GPU
    "--enable-unsafe-swiftshader",
    "--window-size=1300,800",
    "--remote-debugging-port=0",
)

# The page keeps its terminal to itself: it is found among all objects by what it has.
_FIND = "function() { return this.find(o => { try { return o && o.terminal && o.fitAddon } catch { return false } }) }"
_TEXT = """function() {
    const buffer = this.terminal.buffer.active, lines = [];
    for (let y = 0; y < this.terminal.rows; y++) lines.push(buffer.getLine(y).translateToString(true));
    return lines.join("\\n");
}"""


def executable() -> str | None:
    """The browser, if there is one."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    return None


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.requests: list[str] = []
        """Addresses that the page has asked for."""
        self.complaints: list[str] = []
        """Errors of its console: of scripts, and of what its policy has refused."""
        self._terminal = ""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self._socket.receive_json()
                if message.get("id") == number:
                    assert "error" not in message, message
                    result: dict[str, Any] = message["result"]
                    return result
                self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif message.get("method") == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"].get("exception", params)))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])

    async def open(self, address: str) -> None:
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=address)
        await self.call("Page.bringToFront")

    async def evaluate(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait for an expression to be true."""
        async with asyncio.timeout(PATIENCE):
            while not await self.evaluate(expression):
                await asyncio.sleep(0.05)

    async def text(self) -> str:
        """The terminal's screen, line by line; "" before there is one."""
        if not self._terminal:
            prototype = await self.call("Runtime.evaluate", expression="Object.prototype")
            found = await self.call("Runtime.queryObjects", prototypeObjectId=prototype["result"]["objectId"])
            target = await self.call(
                "Runtime.callFunctionOn", functionDeclaration=_FIND, objectId=found["objects"]["objectId"]
            )
            self._terminal = target["result"].get("objectId", "")
            if not self._terminal:
                return ""
        shown = await self.call(
            "Runtime.callFunctionOn", functionDeclaration=_TEXT, objectId=self._terminal, returnByValue=True
        )
        return str(shown["result"].get("value", ""))

    async def wait(self, *words: str) -> str:
        """The screen once it holds all of these."""
        text = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    text = await self.text()
                    if all(word in text for word in words):
                        return text
                    await asyncio.sleep(0.1)
        raise AssertionError(f"waited {PATIENCE:.0f} s for {words}; the screen:\n{text}\n{self.complaints}")

    async def press(self, key: str) -> None:
        """One key, as from a keyboard."""
        code = f"Key{key.upper()}" if key.isalpha() and len(key) == 1 else key
        number = ord(key.upper()) if len(key) == 1 else {"Escape": 27, "Enter": 13}[key]
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        shift = 8 if len(key) == 1 and key.isupper() else 0
        text = {"text": key} if len(key) == 1 else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", modifiers=shift, **common, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", modifiers=shift, **common)


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A browser with an empty page, ended with everything it has started."""
    program = executable()
    assert program is not None
    profile = folder / "chromium"
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        port = await _port(profile / "DevToolsActivePort", process, folder / "chromium.log")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _port(file: Path, process: subprocess.Popen[bytes], log: Path) -> int:
    async with asyncio.timeout(PATIENCE):
        while not (file.exists() and file.read_text().strip()):
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.05)
    return int(file.read_text().split()[0])
