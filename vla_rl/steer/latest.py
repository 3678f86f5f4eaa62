"""Latest: a thread that handles the newest item, and never a queue of old ones."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Latest[Item]:
    """Hands items to a function in a thread of its own; one that comes while it is busy replaces the one that waits.

    Args:
        name: of the thread.
        handle: takes an item; what it raises goes to `fail` and the next item gets its chance.
        fail: takes the error.

    Attributes:
        replaced: items that were never handled, because a newer one came.
    """

    def __init__(self, name: str, handle: Callable[[Item], None], fail: Callable[[Exception], None]) -> None:
        self._handle, self._fail = handle, fail
        self._changed = threading.Condition()
        self._waiting: list[Item] = []
        self._closed = False
        self.replaced = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Have this handled next; returns at once."""
        with self._changed:
            self.replaced += len(self._waiting)
            self._waiting = [item]
            self._changed.notify()

    def close(self, timeout: float = 1.0) -> bool:
        """Handle nothing more; returns whether the thread has ended within `timeout` [s]."""
        with self._changed:
            self._closed, self._waiting = True, []
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                item = self._waiting.pop()
            try:
                self._handle(item)
            except Exception as error:  # one bad item must not end the thread
                self._fail(error)
