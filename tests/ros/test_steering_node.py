"""steering_node in a process of its own: candidates by topic in, the chosen chunk out."""

from __future__ import annotations

import time

import numpy as np
import pytest
from policy_body import SPEC, Ear, flood, stamp
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_rl.ros import messages, qos
from vla_rl.types import Candidates


@pytest.fixture(scope="module")
def steering(start, peer):
    process = start("steering_node", selector="medoid", max_age_s=30.0)
    assert peer.change("steering", "configure")
    assert peer.change("steering", "activate")
    return process


@pytest.fixture(scope="module")
def publisher(steering, peer):
    return peer.publisher(JointTrajectory, "policy/candidates", qos.OFFER)


@pytest.fixture(scope="module")
def chunks(steering, peer):
    """The chunks heard, once they can be heard at all."""
    heard = peer.hear(JointTrajectory, "steering/chunk")
    peer.until(lambda: peer.node.count_publishers("steering/chunk") > 0)
    return heard


def ask(peer, publisher, chunks, found):
    """Publish candidates until their chunk is heard; returns it."""
    peer.every(
        0.2,
        lambda: publisher.publish(messages.candidates(found)),
        lambda: any(stamp(c) == found.stamp_ns for c in chunks),
    )
    return next(c for c in chunks if stamp(c) == found.stamp_ns)


def candidates(count=5, at=None, seed=0):
    chunks = np.random.default_rng(seed).uniform(-1, 1, (count, 16, 6))
    return Candidates(chunks, SPEC.action_spec, 1 / 30, time.time_ns() if at is None else at)


def malformed_candidates():
    good = messages.candidates(candidates())
    yield JointTrajectory()
    yield JointTrajectory(header=good.header, joint_names=list(SPEC.names))
    yield JointTrajectory(header=good.header, joint_names=["a"] * 6, points=good.points)
    yield JointTrajectory(header=good.header, joint_names=list(SPEC.names)[:5], points=good.points)
    yield JointTrajectory(header=good.header, joint_names=list(SPEC.names), points=good.points[:-1])
    yield JointTrajectory(header=good.header, joint_names=list(SPEC.names), points=[JointTrajectoryPoint()] * 1000)
    yield messages.candidates(Candidates(np.full((3, 16, 6), np.nan), SPEC.action_spec, 1 / 30, time.time_ns()))
    yield messages.candidates(candidates(at=0))
    yield messages.candidates(candidates(at=time.time_ns() - 3_600_000_000_000))


def test_it_chooses_by_its_selector_and_leaves_out_what_is_not_finite(peer, publisher, chunks):
    found = candidates()
    found.chunks[4] = found.chunks[:4].mean(0)
    found.chunks[0, 3, 2] = np.nan
    chosen = ask(peer, publisher, chunks, found)
    assert chosen.header.frame_id == "4"
    np.testing.assert_array_equal(messages.chunk_of(chosen, SPEC.action_spec).actions, found.chunks[4])


def test_malformed_candidates_neither_crash_nor_grow_nor_get_through(steering, peer, publisher, chunks):
    ear = Ear(peer, "/steering")
    ask(peer, publisher, chunks, candidates())
    flood(publisher, malformed_candidates, 60)
    before, heard = steering.memory_mb(), len(chunks)
    flood(publisher, malformed_candidates, 300)
    assert steering.alive
    assert steering.memory_mb() - before < 50
    peer.until(lambda: int(ear.values.get("nothing_finite", 0)) > 0)
    assert int(ear.values["rejected/policy/candidates"]) > 0
    assert len(chunks) == heard
    ask(peer, publisher, chunks, candidates())


def test_candidates_older_than_the_robots_clock_allows_are_refused(steering, peer, publisher, chunks):
    joints, ear = peer.publisher(JointState, "joint_states", qos.OFFER), Ear(peer, "/steering")
    ahead = time.time_ns() + 100_000_000_000

    def act():
        joints.publish(messages.joint_state(SPEC.names, np.zeros(6), ahead + time.monotonic_ns() % 10**9))
        publisher.publish(messages.candidates(candidates()))

    peer.every(0.1, act, lambda: "stale" in ear.summary)
    ask(peer, publisher, chunks, candidates(at=ahead))


def test_a_selector_that_does_not_exist_ends_it_in_one_line(start):
    process = start("steering_node", selector="best", __ns="/other")
    assert process.end() == 1
    assert "there are: first, random, medoid" in process.errors[-1]


def test_it_starts_without_torch(steering):
    with open(f"/proc/{steering.pid}/maps") as file:
        assert "libtorch" not in file.read()
