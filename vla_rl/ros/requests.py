"""Requests: work that one thread asks another to do, where only that one may touch something."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue


class Requests:
    """Work waiting for the thread that serves it.

    Args:
        patience_s: how long an asker waits [s].
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: SimpleQueue[tuple[Callable[[], str], Future[str]]] = SimpleQueue()

    def ask(self, work: Callable[[], str]) -> str:
        """Have `work` done by the serving thread; returns what it returns, or raises what it raises.

        Raises:
            TimeoutError: nobody served it in time.
        """
        future: Future[str] = Future()
        self._waiting.put((work, future))
        return future.result(self._patience_s)

    def serve(self) -> bool:
        """Do everything that waits; returns whether there was anything."""
        busy = False
        while not self._waiting.empty():
            work, future = self._waiting.get()
            busy = True
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
        return busy
