"""Who is let in by `driftline serve`, and which addresses it listens on."""

from __future__ import annotations

import pytest

from console.cli.verbs.serve import _print_address, address
from console.errors import CommandError
from console.web.auth import RequestGuard, loopback

HERE = "127.0.0.1:8000"


def guard(public: bool = False) -> RequestGuard:
    return RequestGuard(8000, public=public, token="secret")


@pytest.mark.parametrize(
    ("path", "host", "origin", "token", "cookie", "answer"),
    [
        ("/", HERE, None, "secret", "", "give cookie"),
        ("/", HERE, None, "wrong", "", "no token"),
        ("/", HERE, None, None, "", "no token"),
        ("/", HERE, None, None, "secret", "enter"),
        ("/static/js/textual.js", HERE, None, "secret", "", "no token"),
        ("/ws", HERE, f"http://{HERE}", None, "secret", "enter"),
        ("/ws", HERE, f"http://{HERE}", "secret", "", "no token"),
        ("/ws", HERE, "http://evil.example", None, "secret", "other origin"),
        ("/ws", HERE, "http://127.0.0.1:9000", None, "secret", "other origin"),
        ("/ws", HERE, "null", None, "secret", "other origin"),
        ("/ws", HERE, None, None, "secret", "other origin"),
        ("/", "localhost:8000", None, None, "secret", "enter"),
        ("/", "[::1]:8000", None, None, "secret", "enter"),
        ("/", "evil.example:8000", None, "secret", "secret", "other host"),
        ("/", "127.0.0.1.evil.example", None, "secret", "secret", "other host"),
        ("/ws", "localhost:9000", "http://localhost:9000", None, "secret", "enter"),
        ("/", "", None, "secret", "secret", "other host"),
        ("/", HERE, None, "sécret\udcff", "", "no token"),
    ],
)
def test_only_who_has_the_token_comes_in_by_this_name(
    path: str, host: str, origin: str | None, token: str | None, cookie: str, answer: str
):
    assert guard().check(path, host, origin, token, {"driftline-8000": cookie}) == answer
    assert guard().check(path, host, origin, token, {"driftline-9000": "secret"}) != "enter"


def test_in_public_any_name_will_do_and_the_token_is_needed_all_the_same():
    assert guard(True).check("/", "box.example:8000", None, None, {}) == "no token"
    assert guard(True).check("/", "box.example:8000", None, "secret", {}) == "give cookie"
    assert guard(True).check("/ws", "box.example:8000", "http://evil.example", None, {"driftline-8000": "secret"}) == (
        "other origin"
    )


def test_tokens_are_long_and_of_one_server():
    first, second = RequestGuard(1, public=False), RequestGuard(1, public=False)
    assert first.token != second.token
    assert len(first.token) >= 32


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_allowed(host: str):
    assert loopback(host)
    assert address(host, public=False)[1] is False


@pytest.mark.parametrize(
    ("host", "public", "said"),
    [
        ("192.168.1.7", False, "--host 192.168.1.7: others can reach this address; allowed without --public"),
        ("0.0.0.0", False, "--host 0.0.0.0: not on all interfaces"),
        ("0.0.0.0", True, "--host 0.0.0.0: not on all interfaces"),
        ("::", True, "not on all interfaces"),
        ("box.example", True, "--host box.example: is not an IP address; allowed: 127.0.0.1, ::1, localhost"),
    ],
)
def test_other_addresses_are_refused_with_a_sentence(host: str, public: bool, said: str):
    with pytest.raises(CommandError) as failure:
        address(host, public=public)
    assert said in str(failure.value)
    assert failure.value.exit_code == 2


def test_an_address_that_others_can_reach_is_warned_of(capsys: pytest.CaptureFixture[str]):
    class Run:
        id = "demo-7f3a"

    for public in (False, True):
        url = "http://192.168.1.7:8000/?token=x"
        _print_address(Run(), url, 8000, public=public)  # type: ignore[arg-type]  # all it reads
        printed = capsys.readouterr()
        assert ("WARNING: anyone who can reach this address" in printed.err) == public
        assert printed.out.startswith("run demo-7f3a, read-only\nopen:            http://192.168.1.7:8000/?token=x\n")


def test_an_address_that_others_can_reach_has_to_be_wanted():
    assert address("192.168.1.7", public=True) == ("192.168.1.7", True)
