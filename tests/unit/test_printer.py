"""What is printed, and what the demonstration does, must not block who looks after a run."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest

from console.demo.frame_thread import FrameThread
from console.demo.operator import Sender
from console.errors import CommandError
from console.launch.printer import HELD, Printer
from driftline.client import Client, attach
from driftline.frames import Frame, Metrics
from driftline.rundir import RunError
from tests.unit.hubs import PATIENCE, Hub, until


def test_a_pipe_whose_reader_does_not_read_blocks_no_caller() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    printer = Printer()
    for number in range(3 * HELD):
        printer.submit(lambda number=number: os.write(writing, b"%07d\n" % number))
    assert not printer.flush(0.2), "the pipe is full"
    got: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 65536):
            got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    printer.close()
    os.close(writing)
    reader.join(PATIENCE)
    os.close(reading)
    numbers = [int(line) for line in b"".join(got).split()]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 3 * HELD - 1, "the newest are there"
    assert HELD <= len(numbers) < 2 * HELD, "the oldest went"


def test_the_end_of_the_reader_is_raised_by_the_next_one_unless_the_writes_go_on() -> None:
    def broken() -> None:
        raise BrokenPipeError

    printer = Printer()
    printer.submit(broken)
    printer.flush(PATIENCE)
    with pytest.raises(BrokenPipeError):
        printer.submit(lambda: None)
    with pytest.raises(BrokenPipeError):
        printer.close()
    done: list[int] = []
    lasting = Printer(lasting=True)
    lasting.submit(broken)
    lasting.submit(lambda: done.append(1))
    lasting.close()
    assert done == [1]


def test_a_frame_that_is_being_handled_blocks_no_caller_and_its_error_comes_later() -> None:
    entered, released = threading.Event(), threading.Event()

    def handle(frame: Frame) -> None:
        assert isinstance(frame, Metrics)
        entered.set()
        released.wait(PATIENCE)
        raise CommandError(f"no, at step {frame.step}")

    def play() -> None:
        with FrameThread(handle, cancel=released.set) as frames:
            frame = Metrics(1, 1, 1.0, {})
            frames.put(frame)
            assert entered.wait(PATIENCE)
            for _ in range(100):
                frames.put(frame)
            released.set()
            until(lambda: _raises(frames, frame), "the error")

    with pytest.raises(CommandError, match="no, at step 1"):
        play()


def _raises(frames: FrameThread, frame: Frame) -> bool:
    try:
        frames.put(frame)
    except CommandError:
        return True
    return False


def test_a_command_of_the_demonstration_waits_for_a_hub_that_is_away(hub: Hub) -> None:
    hub.kill()
    sender = Sender(lambda: Client(*attach(hub.run, "operator")))
    sent: list[str] = []
    thread = threading.Thread(target=lambda: sent.append(sender.send("mark", {"text": "hello"})))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive(), "there is no hub yet"
    hub.start()
    thread.join(PATIENCE)
    assert len(sent) == 1
    sender.cancel()


def test_a_wait_for_a_hub_ends_with_the_demonstration(hub: Hub) -> None:
    hub.kill()
    sender = Sender(lambda: Client(*attach(hub.run, "operator")))
    failed: list[CommandError | RunError] = []

    def send() -> None:
        try:
            sender.send("mark", {})
        except (CommandError, RunError) as error:
            failed.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    sender.cancel()
    thread.join(PATIENCE)
    assert len(failed) == 1
