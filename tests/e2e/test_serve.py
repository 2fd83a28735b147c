"""`driftline serve` in a real Chromium: the console's own text arrives, and nothing that is pressed there acts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from console.web.door import MOST_SILENT
from driftline.frames import Command
from driftline.journal.journal import read
from driftline.producer.probe import Probe
from tests import signals
from tests.tui.synthetic import engines, history, run_state
from tests.unit.hubs import PATIENCE, Hub, until
from tests.unit.test_cli import driftline, sentence

pytest.importorskip("textual_serve", reason="needs the extra 'serve' (textual-serve), as constraints.txt has it")

needs_browser = pytest.mark.skipif(
    not any(os.access(Path(folder) / "chromium", os.X_OK) for folder in os.get_exec_path()),
    reason="needs Chromium (Debian package 'chromium'), which .ci/run installs",
)
STEPS = 40


@dataclass
class Serving:
    hub: Hub
    process: subprocess.Popen[str]
    address: str

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    hub = Hub(tmp_path / "runs")
    hub.start()
    probe = Probe("trainer", hub.run)
    for frame in [*history(STEPS), run_state(STEPS), *engines()]:
        probe.send(frame)
    out = tmp_path / "serve.out"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "console.cli", "serve", str(hub.run.path)],
            stdout=file, stderr=subprocess.PIPE, text=True, env=clean,
            preexec_fn=signals.restore_defaults,
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or "ctrl-C" in out.read_text(), "the address")
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        yield Serving(hub, process, re.search(r"http://\S+", out.read_text())[0])  # type: ignore[index]
    finally:
        process.kill()
        process.wait()
        probe.close(1.0)
        hub.end()


@needs_browser
def test_the_console_is_there_in_a_browser_and_cannot_act(serving: Serving, tmp_path: Path) -> None:
    from tests.e2e.browser import browser

    async def look() -> tuple[str, str, str, list[str], list[str]]:
        async with browser(tmp_path) as page:
            await page.open(serving.address)
            shown = await page.wait(f"step {STEPS}", "RO", "engine-0", "mismatch")
            await page.until("document.activeElement.tagName === 'TEXTAREA'")
            for key in ("S", "P", "F"):
                await page.press(key)
                refused = await page.wait("read-only: ")
                assert "esc cancel" not in refused, "nothing to confirm is opened"
            await page.press("?")
            await page.wait("Capitals act on the run (read-only now")
            await page.press("Enter")
            await page.press("q")
            await page.until("document.body.classList.contains('-closed')")
            return shown, refused, await page.evaluate("location.href"), page.requests, page.complaints

    shown, refused, address, requests, complaints = asyncio.run(look())
    assert "clip fraction" in shown
    assert "○ processed logprobs" in shown
    assert refused.splitlines()[-1].strip().startswith("read-only: ")
    base = serving.address.partition("?")[0]
    assert address == base, "the token does not stay in the address"
    own = (base, base.replace("http:", "ws:"), "data:", "blob:")
    assert [url for url in requests if not url.startswith(own)] == [], "no other server is asked for anything"
    assert complaints == []
    frames = [stamped.frame() for stamped in read(serving.hub.run.journal)]
    assert not [frame for frame in frames if isinstance(frame, Command)]
    until(lambda: not serving.children(), "the console behind the page to end")


def fetch(address: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode(), str(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), str(error.headers)


def test_no_client_gets_in_without_the_token(serving: Serving) -> None:
    base, _, token = serving.address.partition("?token=")
    assert fetch(base)[:2] == (403, "open the address that driftline serve has printed: it contains the token\n")
    cookie = f"driftline-{base.rstrip('/').rpartition(':')[2]}={token}"
    status, page, headers = fetch(base, Cookie=cookie)
    assert status == 200
    assert 'id="terminal"' in page
    assert "https://" not in page, "no fonts from elsewhere"
    assert "frame-ancestors 'none'" in headers
    assert "Server" not in headers or token not in headers
    assert fetch(base, Cookie=cookie, Host="evil.example")[0] == 403
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
    assert fetch(f"{base}ws", Cookie=cookie, Origin="http://evil.example", **upgrade)[0] == 403
    assert serving.children() == [], "no console was started for any of them"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_consoles_end_with_the_server_however_it_ends(serving: Serving, number: signal.Signals) -> None:
    import aiohttp

    base, _, token = serving.address.partition("?token=")
    headers = {"Cookie": f"driftline-{base.rstrip('/').rpartition(':')[2]}={token}", "Origin": base.rstrip("/")}

    async def open_and_end() -> list[psutil.Process]:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{base}ws", headers=headers) as socket:
            async with asyncio.timeout(PATIENCE):
                first = await socket.receive()
            assert first.type == aiohttp.WSMsgType.BINARY
            children = serving.children()
            assert children
            serving.process.send_signal(number)
            await asyncio.to_thread(serving.process.wait, PATIENCE)
            return children

    children = asyncio.run(open_and_end())
    assert serving.process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    until(lambda: not any(map(alive, children)), "the consoles to end")


def cookie(serving: Serving) -> tuple[str, dict[str, str]]:
    """The address without the token, and the headers of a page that has been given the cookie."""
    base, _, token = serving.address.partition("?token=")
    return base, {"Cookie": f"driftline-{base.rstrip('/').rpartition(':')[2]}={token}", "Origin": base.rstrip("/")}


def end(serving: Serving) -> str:
    """End the server; what it has said on stderr."""
    serving.process.send_signal(signal.SIGTERM)
    _, said = serving.process.communicate(timeout=PATIENCE)
    assert serving.process.returncode == 128 + signal.SIGTERM
    return str(said)


SAID = (
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"y" * 100,
    b"\x16\x03\x01\0\0 no HTTP\r\n\r\n",
)


def test_a_thousand_silent_connections_do_not_keep_out_a_page_with_the_token(serving: Serving) -> None:
    base, headers = cookie(serving)
    port = int(base.rstrip("/").rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        silent = []
        for at in range(1000):
            silent.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)))
            with contextlib.suppress(OSError):  # it was closed already
                silent[-1].sendall(SAID[at % len(SAID)])
            if at % 250 == 249:
                assert fetch(base, **headers)[0] == 200, f"with {at + 1} connections"
        files = psutil.Process(serving.process.pid).num_fds()
        assert files < MOST_SILENT + 64, "those that gave way are closed"
        until(lambda: psutil.Process(serving.process.pid).num_fds() < 64, "the time of the silent to be up")
        assert fetch(base, **headers)[0] == 200
        for one in silent:
            one.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionResetError):
                while one.recv(4096):
                    pass
    assert end(serving) == ""


def test_what_a_page_sends_later_is_bounded_too(serving: Serving) -> None:
    import aiohttp

    base, headers = cookie(serving)

    async def send(*texts: str) -> int | None:
        """The code with which the server closes the page, None if that is open after all the texts."""
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{base}ws", headers=headers) as page:
            for text in texts:
                await page.send_str(text)
            await page.send_str('["ping", 7]')
            async with asyncio.timeout(PATIENCE):
                async for message in page:
                    if message.type is aiohttp.WSMsgType.TEXT and message.json() == ["pong", 7]:
                        return None
            return page.close_code

    async def all_of_them() -> None:
        sizes = ['["resize", {"width": 1000000000, "height": 1}]', '["resize", {"width": -5, "height": 0}]']
        assert await send(*sizes, '["focus"]', '["blur"]', '["stdin", "?"]') is None
        for text in BAD:
            assert await send(text) in (1008, 1009), text[:40]

    asyncio.run(all_of_them())
    until(lambda: not serving.children(), "the consoles to end")
    assert end(serving) == ""


BAD = (
    "", "null", "[]", "{}", "[" * 50_000, '["resize"]', '["resize", {"width": 1e400, "height": 1}]', '["stdin", 7]',
    '["resize", {"width": true, "height": 1}]', '["quit", 1]', f'["stdin", "{"x" * 70_000}"]',
)  # fmt: skip


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_without_textual_serve_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['textual_serve.app_service'] = sys.modules['textual_serve'] = None\n"
        "from console.cli.main import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, cwd=Path(__file__).parents[2],
        env=os.environ | {"DRIFTLINE_RUNS": str(tmp_path)},
    )  # fmt: skip
    assert sentence(done) == (
        "driftline: serve needs textual-serve, which is not installed: pip install 'driftline[serve]'\n"
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("serve", "--operate"), 2, "unrecognized arguments: --operate"),
        (("serve", "--host", "0.0.0.0"), 2, "not on all interfaces"),
        (("serve", "--host", "10.0.0.1"), 2, "allowed without --public"),
        (("serve",), 3, "no live run"),
        (("serve", "ghost"), 3, "no run 'ghost'"),
        (("serve", "--rules", "no.toml"), 2, "no.toml"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, args: tuple[str, ...], code: int, said: str) -> None:
    done = driftline(*args, cwd=tmp_path)
    assert said in sentence(done)
    assert (done.returncode, done.stdout) == (code, "")


def test_a_port_that_is_taken_is_said_so(serving: Serving) -> None:
    port = serving.address.partition("/?")[0].rpartition(":")[2]
    done = driftline("serve", str(serving.hub.run.path), "--port", port, cwd=serving.hub.run.path)
    assert sentence(done) == f"driftline: cannot listen on 127.0.0.1 port {port}: address already in use\n"
    assert done.returncode == 1
