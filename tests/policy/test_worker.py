"""Worker: the newest observation is answered, in a thread of its own, and nothing ever queues up."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from vla_rl.observe.streams import Streams, StreamsConfig
from vla_rl.policy.worker import Worker
from vla_rl.robot import arm_spec
from vla_rl.types import Candidates

SPEC = arm_spec("so101")
PERIOD = 33_000_000


class Engine:
    """Answers with its observation's stamp, whenever the test lets it."""

    def __init__(self):
        self.free, self.entered = threading.Event(), threading.Semaphore(0)
        self.free.set()
        self.seen, self.broken = [], False

    def candidates(self, history):
        self.entered.release()
        assert self.free.wait(10)
        if self.broken:
            raise RuntimeError("out of memory\nat length")
        self.seen.append((history[-1].stamp_ns, history[-1].instruction))
        return Candidates(np.zeros((1, 4, 6)), SPEC.action_spec, 1 / 30, history[-1].stamp_ns)


class Bench:
    def __init__(self, rate=1000.0, simulated=True):
        self.streams = Streams(SPEC, [], StreamsConfig(max_obs_age=3600.0, simulated_time=simulated))
        self.streams.instruct("lift the red cube")
        self.engine, self.answers, self.complaints, self.stamp = Engine(), [], [], PERIOD
        self.worker = Worker(self.streams, self.engine, self.answers.append, rate, self.complaints.append)

    def move(self, periods=1):
        self.stamp += periods * PERIOD
        assert not self.streams.put_joints(SPEC.names, np.zeros(6), self.stamp, time.monotonic_ns())
        self.worker.notify()

    def wait_for(self, condition):
        end = time.monotonic() + 10
        while not condition() and time.monotonic() < end:
            time.sleep(0.002)
        assert condition()


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.engine.free.set()
    if bench.worker._thread.is_alive():
        assert bench.worker.stop()


def test_no_observation_no_inference(bench):
    assert not bench.worker.step()
    bench.move()
    assert bench.worker.step()
    assert not bench.worker.step(), "the same observation is answered once"
    assert [a.candidates.stamp_ns for a in bench.answers] == [bench.stamp]


def test_while_it_is_busy_only_the_newest_observation_waits(bench):
    bench.engine.free.clear()
    bench.worker.start()
    bench.move()
    assert bench.engine.entered.acquire(timeout=10)
    first = bench.stamp
    for _ in range(20):
        bench.move()
    bench.engine.free.set()
    bench.wait_for(lambda: len(bench.answers) == 2)
    assert [stamp for stamp, _ in bench.engine.seen] == [first, bench.stamp]


def test_an_answer_to_the_old_instruction_is_dropped_and_the_new_one_is_answered_at_once(bench):
    bench.engine.free.clear()
    bench.worker.start()
    bench.move()
    assert bench.engine.entered.acquire(timeout=10)
    bench.streams.instruct("push the blue cube")
    bench.engine.free.set()
    bench.wait_for(lambda: bench.answers)
    assert [words for _, words in bench.engine.seen] == ["lift the red cube", "push the blue cube"]
    assert [a.history[-1].instruction for a in bench.answers] == ["push the blue cube"]
    assert bench.worker.counts["superseded"] == 1


def test_errors_are_counted_and_named_and_three_in_a_row_are_one_complaint(bench):
    bench.engine.broken = True
    for i in range(5):
        bench.move()
        bench.worker.step()
        assert bench.worker.failing == (i >= 2)
    assert bench.worker.counts["errors"] == 5
    assert bench.complaints == ["inference failed 3 times in a row, the arm holds: RuntimeError: out of memory"]
    assert bench.worker.problems() == ["inference failed: RuntimeError: out of memory"]
    bench.engine.broken = False
    bench.move()
    bench.worker.step()
    assert not bench.worker.failing
    assert bench.worker.problems() == []


def test_an_inference_that_never_ends_is_not_waited_for_and_not_delivered(bench):
    bench.engine.free.clear()
    bench.worker.start()
    bench.move()
    assert bench.engine.entered.acquire(timeout=10)
    assert not bench.worker.stop(timeout=0.05)
    bench.engine.free.set()
    bench.wait_for(lambda: not bench.worker._thread.is_alive())
    assert bench.answers == []


def test_in_simulated_time_the_rate_counts_by_stamps():
    bench = Bench(rate=1e9 / PERIOD / 4)
    for _ in range(20):
        bench.move()
        bench.worker.step()
    stamps = np.array([a.candidates.stamp_ns for a in bench.answers])
    assert (np.diff(stamps) == 4 * PERIOD).all()
    assert len(stamps) == 5


def test_a_reset_to_an_earlier_time_is_answered_at_once():
    bench = Bench(rate=1.0)
    bench.move(100)
    bench.worker.step()
    bench.stamp = 0
    bench.move()
    assert bench.worker.step()


def test_simulated_time_that_stands_still_is_answered_though_it_is_not_due(monkeypatch):
    """Lock-step after a reset: the robot waits for a command, and the command for this answer."""
    bench = Bench(rate=1.0)
    bench.move()
    bench.worker.step()
    bench.move()
    assert not bench.worker.step()
    monkeypatch.setattr("vla_rl.policy.worker.STANDSTILL_S", 0.0)
    assert bench.worker.step()


def test_an_inference_that_takes_very_long_is_named(bench, monkeypatch):
    monkeypatch.setattr("vla_rl.policy.worker.LONG_S", 0.0)
    bench.engine.free.clear()
    bench.worker.start()
    bench.move()
    assert bench.engine.entered.acquire(timeout=10)
    assert "inference under way" in bench.worker.problems()[0]
    bench.engine.free.set()
    bench.wait_for(lambda: bench.worker.problems() == [])


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rate must be positive"):
        Bench(rate=0.0)
