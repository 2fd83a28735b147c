"""The lock goes round: one that lets go of it in a loop does not keep another from it."""

from __future__ import annotations

import threading
import time

from console.tui.watch.fair_lock import FairLock

TURNS = 50


def test_who_waits_has_it_before_who_had_it_last() -> None:
    for _ in range(TURNS):
        lock = FairLock()
        order: list[str] = []

        def other(lock: FairLock = lock, order: list[str] = order) -> None:
            with lock:
                order.append("other")

        with lock:
            thread = threading.Thread(target=other)
            thread.start()
            deadline = time.monotonic() + 60
            while not lock._queue.locked() and time.monotonic() < deadline:
                time.sleep(0.0005)
            assert lock._queue.locked(), "it never waited"
        with lock:  # at once, as a loop does: a plain lock is taken back before the other has woken up
            order.append("again")
        thread.join()
        assert order == ["other", "again"]


def test_only_one_is_inside() -> None:
    lock = FairLock()
    total = 0

    def count() -> None:
        nonlocal total
        for _ in range(2000):
            with lock:
                seen = total
                if seen % 100 == 0:
                    time.sleep(0)
                total = seen + 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == 8000
