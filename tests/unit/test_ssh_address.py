"""Addresses of runs on other machines, and the arguments that OpenSSH gets: pure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.connect import ssh
from driftline.rundir import Connection

CONTROL = Path("/tmp/c")


@pytest.mark.parametrize(
    ("text", "destination", "options", "path"),
    [
        ("ssh://box/runs/a", "box", [], "/runs/a"),
        ("ssh://ana@box.example.org:2222/runs/a/", "ana@box.example.org", ["-p", "2222"], "/runs/a"),
        ("ssh://ana@[fe80::1%eth0]:22/r", "ana@fe80::1%eth0", ["-p", "22"], "/r"),
        ("ssh://box/~/runs/a b", "box", [], "./runs/a b"),
    ],
)
def test_addresses(text: str, destination: str, options: list[str], path: str) -> None:
    address = ssh.parse(text)
    assert (address.destination, address.options, address.path) == (destination, options, path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ssh://", "the host may have"),
        ("ssh:///path", "the host may have"),
        ("ssh://-oProxyCommand=id/path", "the host may have"),
        ("ssh://a b/path", "the host may have"),
        ("ssh://$(id)/path", "the host may have"),
        ("ssh://`id`/path", "the host may have"),
        ("ssh://h\n/path", "the host may have"),
        ("ssh://@host/path", "the user may have"),
        ("ssh://-l@host/path", "the user may have"),
        ("ssh://a;b@host/path", "the user may have"),
        ("ssh://host:/path", "the port must be"),
        ("ssh://host:0/path", "the port must be"),
        ("ssh://host:65536/path", "the port must be"),
        ("ssh://host:٢٢/path", "the port must be"),
        ("ssh://host/", "is missing"),
        ("ssh://host/a\x1b[2J", "the path may have"),
        ("ssh://host/a'b", "the path may have"),
        ("ssh://[not ipv6]/a", "the host may have"),
    ],
)
def test_what_is_no_address_says_which_part(text: str, said: str) -> None:
    with pytest.raises(ssh.AddressError, match=said) as refused:
        ssh.parse(text)
    assert str(refused.value).isprintable(), "what is wrong with it must not reach the terminal either"


@given(st.text(max_size=40), st.text(max_size=20))
def test_nothing_gets_in_front_of_the_destination(host: str, user: str) -> None:
    try:
        address = ssh.parse(f"ssh://{user}@{host}/run")
    except ssh.AddressError:
        return
    for arguments in (ssh.master(address, CONTROL, prompts=True), ssh.read_file(address, CONTROL, address.path)):
        after = arguments[arguments.index("--") + 1 :]
        assert after[0] == address.destination
        assert not after[0].startswith("-")


def test_the_connection_forwards_nothing_of_its_own_and_asks_nothing_behind_a_screen() -> None:
    address = ssh.parse("ssh://box/r")
    asking, silent = (ssh.master(address, CONTROL, prompts=prompts) for prompts in (True, False))
    assert "BatchMode=yes" in silent
    assert not any(part.startswith("BatchMode") for part in asking)
    for option in ("ClearAllForwardings=yes", "ForwardAgent=no", "ServerAliveInterval=5", "ExitOnForwardFailure=yes"):
        assert option in asking
    channel = ssh.read_file(address, CONTROL, "/r/it's")
    assert "ProxyCommand=false" in channel, "without the connection there is no other way out"
    assert channel[-1] == """test ! -p '/r/it'"'"'s' && cat -- '/r/it'"'"'s'"""


def test_both_endpoints_go_over_one_connection() -> None:
    def connection(live: str) -> Connection:
        return Connection(run="r", ingest="", live=live, rpc="tcp://[::1]:2", server="k" * 40, pid=1, started=0.0)

    address = ssh.parse("ssh://box/r")
    arguments = ssh.forward(address, CONTROL, connection("tcp://127.0.0.1:15001"), Path("/d"))
    assert arguments[arguments.index("-O") + 1] == "forward"
    assert [part for part in arguments if ":" in part] == ["/d/live:127.0.0.1:15001", "/d/rpc:[::1]:2"]
    for odd in ("ipc:///x", "tcp://-oX:1", "tcp://127.0.0.1:1 -oX", "tcp://a:b:1"):
        with pytest.raises(ssh.AddressError, match="no TCP address"):
            ssh.forward(address, CONTROL, connection(odd), Path("/d"))


def test_the_telling_line_of_its_complaints() -> None:
    text = "Warning: Permanently added 'x' to the list of known hosts.\nssh: connect to host x port 1: refused.\n"
    assert ssh.last_words(text) == "connect to host x port 1: refused"
    assert ssh.last_words("") == "ssh printed nothing"
