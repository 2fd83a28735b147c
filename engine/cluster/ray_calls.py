"""Ray calls from a thread of their own: an event loop that awaits actors, so that the trainer's thread need not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, TypeVar

from engine.types import EngineError

T = TypeVar("T")


class GoneError(EngineError):
    """The actor behind a call is dead, or has not answered in time and counts as dead."""


class DiedError(GoneError):
    """The process of the actor has died."""


class LoopThread:
    """An event loop on a daemon thread. `stop` cancels what still runs in it."""

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._name = name
        self._pending: set[Future[Any]] = set()

    @property
    def running(self) -> bool:
        """Between `start` and `stop`."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
        self._thread.start()

    def schedule(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop; does not wait. Raises EngineError when the loop is not running."""
        if self._loop is None:
            work.close()
            raise EngineError("the engine pool is not running")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def post(self, call: Callable[[], object]) -> None:
        """Make a plain call on the loop, soon. Raises EngineError when the loop is not running."""
        if self._loop is None:
            raise EngineError("the engine pool is not running")
        self._loop.call_soon_threadsafe(call)

    def wait(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and wait for it. Raises EngineError after `timeout` s, or when stopped."""
        if threading.current_thread() is self._thread:
            work.close()
            raise EngineError("the pool's own thread cannot wait for the pool; call it from another thread")
        future = self.schedule(work)
        try:
            return future.result(timeout)
        except CancelledError as error:
            raise EngineError("the engine pool was closed") from error
        except TimeoutError as error:
            future.cancel()
            raise EngineError(f"no answer within {timeout:g} s") from error

    def stop(self, timeout: float = 5.0) -> None:
        """Cancel every coroutine and end the thread. Idempotent."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = None
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop)
        thread.join(timeout)
        # A coroutine that ended in the loop's last turn has not set its future: a waiting thread must see the end.
        for future in list(self._pending):
            future.cancel()


async def ask(name: str, call: Callable[[], Awaitable[T]], log: Path, timeout: float | None = None) -> T | EngineError:
    """Await one call of the engine `name`; every way it can fail comes back as an EngineError that names it.

    GoneError: its process is dead (DiedError), or gave no answer within `timeout` seconds.
    """
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        return await asyncio.wait_for(call(), timeout)
    except RayTaskError as error:
        cause = error.cause
        return cause if isinstance(cause, EngineError) else EngineError(f"{name}: {_last_line(error)}; see {log}")
    except RayActorError:
        return DiedError(f"{name}: its process died; see {log}")
    except RayError as error:
        return EngineError(f"{name}: {_last_line(error)}; see {log}")
    except TimeoutError:
        return GoneError(f"{name}: no answer within {timeout:g} s; see {log}")


def unwrap(results: list[T | EngineError]) -> list[T]:
    """The results, or the first error among them raised."""
    good: list[T] = []
    for result in results:
        if isinstance(result, EngineError):
            raise result
        good.append(result)
    return good


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    asyncio.get_running_loop().stop()


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
