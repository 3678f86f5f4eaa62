"""Scorer: a critic in a thread of its own, so that it can be late without anybody waiting for it."""

from __future__ import annotations

import threading
import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vla_rl.types import Array, Candidates


class Critic(Protocol):
    """Says what candidates are worth."""

    def values(self, context: NDArray[np.float32] | None, chunks: Array) -> Array:
        """What each of an ensemble of E says of each of K chunks.

        Args:
            context: features of the observation, (D,), or None where the policy gives none.
            chunks: (K, H, A), absolute joint targets [rad].

        Returns:
            (E, K), higher is better.
        """


class Scorer:
    """Scores candidates slice by slice, until it is done or its time has run out.

    Args:
        critic: who scores.
        size: candidates in a slice.

    Attributes:
        error: why the critic last failed, "" where it never did.
    """

    def __init__(self, critic: Critic, size: int) -> None:
        self._critic, self._size, self.error = critic, size, ""
        self._changed = threading.Condition()
        self._job: Candidates | None = None
        self._until_ns = 0
        self._done: list[Array] = []
        self._finished = self._closed = False
        threading.Thread(target=self._run, name="critic", daemon=True).start()

    def score(self, candidates: Candidates, until_ns: int) -> Array | None:
        """Values of the first n candidates, (E, n), as many as were ready in time; None where none were.

        Args:
            candidates: what to score; the critic turns to them when it has finished its last slice.
            until_ns: when to answer at the latest, monotonic clock [ns].
        """
        with self._changed:
            self._job, self._until_ns, self._done, self._finished = candidates, until_ns, [], False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._finished, max(0.0, (until_ns - time.monotonic_ns()) / 1e9))
            self._job = None
            return np.concatenate(self._done, axis=1) if self._done else None

    def close(self) -> None:
        """End the thread after its slice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._job is not None and not self._finished))
                if self._closed:
                    return
                job, start = self._job, sum(part.shape[1] for part in self._done)
            if job is not None:
                self._score_slice(job, start)

    def _score_slice(self, job: Candidates, start: int) -> None:
        part = job.chunks[start : start + self._size]
        try:
            values = np.asarray(self._critic.values(job.context, part), dtype=np.float64)
            if values.ndim != 2 or values.shape[1] != len(part):
                raise ValueError(f"values of {len(part)} chunks have the shape {values.shape}")
        except Exception as error:  # a critic that fails is one that knows no value
            self.error, values = f"{type(error).__name__}: {error}", np.full((1, len(part)), np.nan)
        with self._changed:
            if self._job is not job:
                return
            if self._done and len(values) != len(self._done[0]):
                values = np.full((len(self._done[0]), len(part)), np.nan)
            self._done.append(values)
            self._finished = start + len(part) >= len(job.chunks)
            self._changed.notify_all()
