"""Scorer: a critic in a thread of its own, so that it can be late without anybody waiting for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from vla_rl.types import Array, Candidates

EMA = 0.2  # weight of the newest measurement in what a candidate takes


class Critic(Protocol):
    """Says what candidates are worth.

    Attributes:
        members: critics in the ensemble, E.
        distribution: whether they know the return's distribution, and not its mean alone.
    """

    members: int
    distribution: bool

    def prepare(self, candidates: Candidates) -> tuple[Any, float]:
        """What all chunks of a set share, computed once: a context, and how far the observation is from training data.

        The distance is 1 for what 99% of the training data lie within, nan where it is not known.
        """

    def values(self, context: Any, chunks: Array, tau: float | None = None) -> Array:
        """What each of an ensemble of E says of each of K chunks.

        Args:
            context: from `prepare`.
            chunks: (K, H, A), absolute joint targets [rad].
            tau: ask for this lower quantile of the return; None asks for its mean.

        Returns:
            (E, K), higher is better.
        """


@dataclass(frozen=True, eq=False)
class Scores:
    """What a critic said in time: values of the first n candidates, (E, n), and the observation's distance."""

    values: Array
    distance: float


@dataclass(eq=False)
class _Job:
    """One set, as far as it is scored."""

    candidates: Candidates
    until_ns: int
    context: Any = None
    distance: float = float("nan")
    prepared: bool = False
    done: list[Array] = field(default_factory=list)

    @property
    def scored(self) -> int:
        return sum(part.shape[1] for part in self.done)

    @property
    def finished(self) -> bool:
        return self.scored >= len(self.candidates.chunks)


class Scorer:
    """Scores candidates slice by slice, until it is done or its time has run out.

    The context is computed once a set. A slice holds as many candidates as are likely to be ready in time, judged by
    what the last ones took, so that usually all are one batched pass, and fewer are scored rather than late.

    Args:
        critic: who scores.
        size: candidates in a slice at most.
        tau: the quantile that the critic is asked for, None for the mean.

    Attributes:
        error: why the critic last failed, "" where it never did.
    """

    def __init__(self, critic: Critic, size: int, tau: float | None = None) -> None:
        self._critic, self._size, self._tau, self.error = critic, size, tau, ""
        self._changed = threading.Condition()
        self._job: _Job | None = None
        self._each_s = 0.0  # what a candidate takes, lately
        self._closed = False
        threading.Thread(target=self._run, name="critic", daemon=True).start()

    def score(self, candidates: Candidates, until_ns: int) -> Scores | None:
        """Values of the first n candidates, as many as were ready in time; None where none were.

        Args:
            candidates: what to score; the critic turns to them when it has finished its last slice.
            until_ns: when to answer at the latest, monotonic clock [ns].
        """
        job = _Job(candidates, until_ns)
        with self._changed:
            self._job = job
            self._changed.notify_all()
            self._changed.wait_for(lambda: job.finished, max(0.0, (until_ns - time.monotonic_ns()) / 1e9))
            self._job = None
            return Scores(np.concatenate(job.done, axis=1), job.distance) if job.done else None

    def close(self) -> None:
        """End the thread after its slice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._job is not None and not self._job.finished))
                if self._closed:
                    return
                job = self._job
            if job is not None:
                self._score_slice(job)

    def _score_slice(self, job: _Job) -> None:
        self._prepare(job)  # takes its time too: what is left of it decides how many fit
        part = job.candidates.chunks[job.scored : job.scored + self._fitting(job)]
        values = self._said(job, part)
        with self._changed:
            if self._job is not job:
                return
            if job.done and len(values) != len(job.done[0]):
                values = np.full((len(job.done[0]), len(part)), np.nan)
            job.done.append(values)
            self._changed.notify_all()

    def _fitting(self, job: _Job) -> int:
        """How many candidates are likely to be ready in time, from 1 to the size of a slice."""
        left_s = (job.until_ns - time.monotonic_ns()) / 1e9
        return max(1, min(self._size, int(left_s / self._each_s))) if self._each_s else self._size

    def _prepare(self, job: _Job) -> None:
        """The set's context, once; where the critic fails it is none."""
        if job.prepared:
            return
        try:
            (job.context, job.distance), job.prepared = self._critic.prepare(job.candidates), True
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def _said(self, job: _Job, part: Array) -> Array:
        """Values (E, n) of a slice; a critic that fails is one that knows no value."""
        if not job.prepared:
            return np.full((1, len(part)), np.nan)
        try:
            start = time.monotonic_ns()
            values = np.asarray(self._critic.values(job.context, part, self._tau), dtype=np.float64)
            took_s = (time.monotonic_ns() - start) / 1e9 / len(part)
            self._each_s += (EMA if self._each_s else 1.0) * (took_s - self._each_s)
            if values.ndim != 2 or values.shape[1] != len(part):
                raise ValueError(f"values of {len(part)} chunks have the shape {values.shape}")
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            return np.full((1, len(part)), np.nan)
        return values
