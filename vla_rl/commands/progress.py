"""A progress bar for people: drawn on a terminal's standard error, silent everywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self


class Bar:
    """A bar of known length with a free text behind it.

    Args:
        title: what is being done.
        total: how much there is to do.
    """

    def __init__(self, title: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns: list[Any] = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        ]
        self._progress = Progress(
            *columns, TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal
        )
        self._task = self._progress.add_task(title, total=total, note="")

    def update(self, done: int, note: str = "") -> None:
        """Set how much is done."""
        self._progress.update(self._task, completed=done, note=note)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
