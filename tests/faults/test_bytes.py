"""Faults 13, 14, 15, 17 and 28: bytes that were cut, flipped, mutated, too many or not numbers."""

from __future__ import annotations

import ast
import io
import math
import os
import resource
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest

from driftline import wire
from driftline.frames import (
    MAX_BODY,
    Ack,
    Command,
    Event,
    Frame,
    FrameError,
    Lease,
    Metrics,
    RunState,
    Tokens,
    decode,
    encode,
    floats,
)
from driftline.hub.core import Core
from driftline.hub.effects import Now, Write
from driftline.journal.journal import Damage, Journal, Record, read, record_encoder, scan, segments
from driftline.keys import Grant
from driftline.producer.probe import Probe
from tests.faults.scale import dice, scaled
from tests.unit.hubs import PATIENCE, Hub

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]


def tokens(n: int) -> Tokens:
    blob = np.arange(n, dtype="<i4").tobytes()
    return Tokens(1, 2, 3.0, n, blob, blob, blob, blob, blob, blob, ("engine-0",), ("p",), (0.5,))


FRAMES: tuple[Frame, ...] = (
    Metrics(1, 2, 3.0, {"policy/kl": 0.1, "reward/mean": float("nan")}, {"policy/kl": "exact"}),
    tokens(5),
    Event(1.0, "warn", "kind", "some text", 3, {"a": 1, "b": "x", "c": 0.5, "d": True}),
    RunState("r", "running", 1, 2, 3, 4.0),
    Ack("ab" * 16, "applied", 1.0, "detail", {"engines": 2}),
    Lease("operator ana", "ana@box:1", 1.0, 121.0),
)


def journal(folder: Path, count: int) -> bytes:
    log = Journal(folder)
    for seq in range(1, count + 1):
        body = encode(FRAMES[seq % len(FRAMES)])
        log.append(record_encoder.encode(Record(seq, 1.0, "trainer", msgspec.Raw(body), 7, seq)), seq, True)
    log.close()
    return segments(folder)[0].read_bytes()


def found(data: bytes, damage: Damage) -> dict[int, bytes]:
    return {seq: body for _, seq, body in scan(io.BytesIO(data), damage)}


def test_f13_a_cut_at_every_byte_gives_every_complete_record_back(tmp_path: Path) -> None:
    whole = journal(tmp_path, 30)
    ends = [offset + 20 + len(body) for offset, _, body in scan(io.BytesIO(whole), Damage())]
    good = found(whole, Damage())
    cuts = range(ends[-scaled(4, 12)], len(whole) + 1)
    for cut in cuts:
        complete = sum(1 for end in ends if end <= cut)
        assert found(whole[:cut], Damage()) == {seq: good[seq] for seq in range(1, complete + 1)}
    print(f"f13: {len(cuts)} cuts")
    assert len(cuts) >= scaled(200, 1000)


def test_f14_flipped_bits_are_never_believed_and_cost_one_record(tmp_path: Path) -> None:
    whole = journal(tmp_path, 40)
    good = found(whole, Damage())
    rolls = dice("f14")
    for _ in range(scaled(1500, 10_000)):
        broken = bytearray(whole)
        bit = rolls.randrange(64 * 8, len(whole) * 8)
        broken[bit // 8] ^= 1 << bit % 8
        damage = Damage()
        left = found(bytes(broken), damage)
        assert left.items() <= good.items(), "silently wrong"
        assert len(left) == len(good) - 1, "more than one record lost"
        assert damage.bytes + damage.torn > 0, "not reported"


def mutated(rolls, seed: bytes) -> bytes:  # type: ignore[no-untyped-def]
    data = bytearray(seed)
    for _ in range(rolls.randrange(1, 6)):
        match rolls.randrange(6):
            case 0 if data:
                data[rolls.randrange(len(data))] ^= 1 << rolls.randrange(8)
            case 1 if data:
                data[rolls.randrange(len(data))] = rolls.choice((0, 0x7F, 0x80, 0xC1, 0xDC, 0xDD, 0xDF, 0xFF))
            case 2 if data:
                del data[rolls.randrange(len(data)) :]
            case 3:
                data[rolls.randrange(len(data) + 1) : 0] = rolls.randbytes(rolls.randrange(1, 9))
            case 4 if data:
                at = rolls.randrange(len(data))
                data[at : at + 4] = struct.pack("<I", rolls.choice((0, 2**31 - 1, 2**32 - 1)))
            case _:
                data = data + data[rolls.randrange(len(data) + 1) :]
    return bytes(data)


def in_turn(core: Core, body: bytes) -> bytes:
    """A body in a message whose head is right, so that it is looked at."""
    return wire.DATA_HEAD.pack(wire.DATA, 7, core.producers.tails.entry(("trainer", 7)).last + 1, 0) + body


def test_f15_mutated_frames_on_both_endpoints_raise_nothing() -> None:
    """Straight into the core: what gets through the sockets gets there unchanged. Memory must not grow with it."""
    count = scaled(40_000, 1_000_000)
    rolls = dice("f15")
    core, now = Core("r", 1), Now(1000.0, 1000.0)
    producer, operator = Grant("producer", "*", "p"), Grant("operator", "o", "o")
    hello = wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 0, 1))
    core.on_ingest(b"p", producer, hello, now)
    ingest = [wire.DATA_HEAD.pack(wire.DATA, 7, 1, 0) + encode(frame) for frame in FRAMES]
    ingest += [hello, wire.PING_HEAD.pack(wire.PING, 7, 0), wire.LOST + wire.pack(wire.Lost(7, {"tokens": 1}))]
    command = Command("ab" * 16, "fix.set", {"fix": "fp32-lm-head", "value": "on"}, -1, 1060.0)
    asks = (
        wire.SnapshotRequest(1), wire.PageRequest(1, 1), wire.CommandRequest(1, command),
        wire.AcksRequest(1, "ab" * 16), wire.PingRequest(1), wire.LeaseRequest(1, "ana@box:1", "take"),
    )  # fmt: skip
    rpc = [wire.pack(ask) for ask in asks]
    before = 0
    for number in range(count):
        if number == count // 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        now = Now(1000.0 + number / 1000, 1000.0 + number / 1000)
        for effects in (
            core.on_ingest(b"p", producer, mutated(rolls, rolls.choice(ingest)), now),
            core.on_ingest(b"p", producer, in_turn(core, mutated(rolls, encode(rolls.choice(FRAMES)))), now),
            core.on_request(b"c", operator, mutated(rolls, rolls.choice(rpc)), now),
        ):
            for effect in effects:
                if isinstance(effect, Write):
                    decode(effect.body)  # only frames get into the journal, whatever was sent
                    core.on_written(effect, core.stamp(effect, now))
        if number % 100 == 0:
            core.on_ingest(b"p", producer, hello, now)
            core.acks()
            core.on_tick(now)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(
        f"f15: {3 * count} messages, {core.producers.bad_frames} bad, {core.head} written, {grown} MiB more at the peak"
    )
    assert core.producers.bad_frames > count // 4
    assert grown < 50


@pytest.mark.parametrize("n", [0, 1, 4096, 100_000])
def test_f17_numbers_arrive_bit_for_bit(hub: Hub, n: int) -> None:
    odd = (0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -2.2e-310, 1.7976931348623157e308)
    values = {f"v{i}": value for i, value in enumerate(odd)}
    special = np.resize(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -3e-39], dtype="<f4"), n)
    ints = np.arange(n)
    with Probe("trainer", hub.run) as probe:
        probe.emit(values, step=1)
        probe.tokens(
            step=1, version=1, ids=ints, seq=ints, position=ints, token_version=ints, rollout=special, trainer=special
        )
        assert probe.flush(PATIENCE)
    metrics, arrays = (s.frame() for s in read(hub.run.journal))
    assert {k: struct.pack("<d", v) for k, v in metrics.values.items()} == {
        k: struct.pack("<d", v) for k, v in values.items()
    }
    assert arrays.n == n
    assert floats(arrays.trainer).tobytes() == special.tobytes()


def test_f17_too_large_or_misshapen_is_refused_here_and_the_neighbours_arrive(hub: Hub) -> None:
    ints, huge = np.arange(10), np.zeros(1_000_000)
    with Probe("trainer", hub.run) as probe:
        probe.emit({"a": 1.0}, step=0)
        fields = ("ids", "seq", "position", "token_version", "rollout", "trainer")
        probe.tokens(step=1, version=1, **dict.fromkeys(fields, huge))
        probe.event("k", "x" * (MAX_BODY + 1))
        probe.tokens(step=1, version=1, **{**dict.fromkeys(fields, ints), "rollout": ints[:3]})
        probe.emit({"a": 1.0}, step=2)
        assert probe.flush(PATIENCE)
        assert probe.stats.refused == 3
    assert [s.frame().step for s in read(hub.run.journal)] == [0, 2]
    short = encode(msgspec.structs.replace(tokens(5), rollout=b"1234"))
    with pytest.raises(FrameError, match=r"Tokens\.rollout: 4 bytes, 20 expected"):
        decode(short)


def test_f28_nothing_unpickles_and_nothing_listens_everywhere() -> None:
    """In the source of everything that speaks on the wire: no pickle in any shape, no bind to every interface."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle"}
    calls = {"recv_pyobj", "send_pyobj", "eval", "exec", "loads_pickle"}
    looked = 0
    for folder in ("driftline", "console"):
        for path in (ROOT / folder).rglob("*.py"):
            looked += 1
            text = path.read_text()
            for node in ast.walk(ast.parse(text)):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name.split(".")[0] for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [(node.module or "").split(".")[0]]
                assert not forbidden & set(names), path
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    own = isinstance(node.func, ast.Name)
                    assert name not in calls or (name in {"eval", "exec"} and not own), f"{path}: {name}"
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not node.value.startswith(("tcp://*", "tcp://0.0.0.0", "tcp://[::]")), path
    assert looked > 30


def test_f28_no_unpickling_happens_in_a_hub_at_work(hub: Hub, tmp_path: Path) -> None:
    """The interpreter's own audit events, in a hub that takes frames and answers."""
    import subprocess
    import sys

    assert hub.stop() == 0
    log = tmp_path / "pickles"
    code = (
        "import os, sys\n"
        f"fd = os.open({str(log)!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)\n"
        "sys.addaudithook(lambda e, a: os.write(fd, e.encode() + b'\\n') if 'pickle' in e else None)\n"
        "from driftline.hub.__main__ import main\n"
        f"sys.exit(main([{str(hub.run.path)!r}]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ, stderr=subprocess.DEVNULL)
    try:
        with Probe("trainer", hub.run) as probe:
            for frame in FRAMES[:4]:
                probe.send(frame)
            assert probe.flush(PATIENCE)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert log.read_text() == ""
    finally:
        process.kill()
        process.wait()
