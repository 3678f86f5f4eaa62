"""Workers: play jobs in several processes and hand the results back in the order of the jobs.

Processes are spawned, each with its own worlds and actor. A worker that dies is reported, never waited for; when the
parent dies, however hard, the workers see their pipe close and leave.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from vla_rl.rollout.play import Job, Player, Rollout

# Jobs in flight, as a multiple of what can be played at once: bounds the results that wait for their turn.
WINDOW = 3
# LP is llvmpipe, the software renderer: one thread a worker is far faster than several that fight for the cores.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")


class WorkerError(RuntimeError):
    """A worker failed; the message is one line, `trace` its whole traceback."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


@dataclass(frozen=True)
class _Failure:
    message: str
    trace: str


def play(jobs: Iterable[Job], make_player: Callable[[], Player], workers: int) -> Iterator[Rollout]:
    """Play jobs and yield their results in the jobs' order, whatever the number of workers.

    Args:
        jobs: what to play, taken lazily.
        make_player: a picklable factory, called once in every worker.
        workers: processes; 0 plays in this one.

    Raises:
        WorkerError: a worker raised or died; what was yielded before stands.
    """
    if workers <= 0:
        yield from _play_here(jobs, make_player)
        return
    pool = _Pool(make_player, workers)
    try:
        yield from _in_order(iter(jobs), pool)
    finally:
        pool.close()


def _play_here(jobs: Iterable[Job], make_player: Callable[[], Player]) -> Iterator[Rollout]:
    player = make_player()
    order, done = iter(jobs), dict[int, Rollout]()
    pending: list[int] = []
    try:
        while True:
            while len(pending) < WINDOW * player.actor.slots and (job := next(order, None)) is not None:
                pending.append(job.index)
                player.add(job)
            if not pending:
                return
            done |= {r.job.index: r for r in player.tick()}
            while pending and pending[0] in done:
                yield done.pop(pending.pop(0))
    finally:
        player.close()


def _in_order(jobs: Iterator[Job], pool: _Pool) -> Iterator[Rollout]:
    pending: list[int] = []
    done: dict[int, Rollout] = {}
    more = True
    while True:
        while more and len(pending) < pool.window and (worker := pool.idlest()) is not None:
            job = next(jobs, None)
            more = job is not None
            if job is not None:
                pending.append(job.index)
                worker.give(job)
        if not pending:
            return
        done |= {r.job.index: r for r in pool.collect()}
        while pending and pending[0] in done:
            yield done.pop(pending.pop(0))


class _Worker:
    """One process, seen from the parent."""

    def __init__(self, context: Any, make_player: Callable[[], Player]) -> None:
        self.connection, child = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(child, make_player), daemon=True)
        self.process.start()
        child.close()
        self.slots = 0  # unknown until it has started
        self.load = 0

    def give(self, job: Job) -> None:
        """Have it play a job; where it has ended, `receive` says so, and of what."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(job)
        self.load += 1

    def receive(self) -> Rollout | None:
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self.process.join(timeout=5)
            code = self.process.exitcode
            how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
            raise WorkerError(f"a worker process {how}; try fewer --workers if memory ran out") from error
        if isinstance(message, _Failure):
            raise WorkerError(message.message, message.trace)
        if isinstance(message, int):
            self.slots = message
            return None
        self.load -= 1
        rollout: Rollout = message
        return rollout


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside inherit an environment that keeps libraries to one thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


class _Pool:
    """All workers, seen from the parent."""

    def __init__(self, make_player: Callable[[], Player], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        with _one_thread_each():
            self.workers = [_Worker(context, make_player) for _ in range(count)]
        while not all(worker.slots for worker in self.workers):
            self.collect()
        self.window = WINDOW * sum(worker.slots for worker in self.workers)

    def idlest(self) -> _Worker | None:
        """The worker with the smallest load, or None where all have their slots and one more episode each."""
        free = [w for w in self.workers if w.load <= w.slots]
        return min(free, key=lambda w: w.load / w.slots) if free else None

    def collect(self) -> list[Rollout]:
        """Wait until a worker reports; returns the episodes that it finished."""
        ready = wait([worker.connection for worker in self.workers])
        received = [worker.receive() for worker in self.workers if worker.connection in ready]
        return [rollout for rollout in received if rollout is not None]

    def close(self) -> None:
        """End every worker; what they were playing is dropped."""
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            worker.process.terminate()
            worker.process.join(timeout=10)


def _serve(connection: Connection, make_player: Callable[[], Player]) -> None:
    """A worker's life: take jobs, play, send results, until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    try:
        player = make_player()
        connection.send(player.actor.slots)
        while True:
            while not player.busy or connection.poll():
                player.add(connection.recv())
            for rollout in player.tick():
                connection.send(rollout)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:  # crosses the process border as text
        message = str(error) if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: {error}"
        connection.send(_Failure(message, traceback.format_exc()))
