"""policy and steering over real DDS with the shipped checkpoint: what it takes to answer, and what it survives."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from policy_body import CAMERAS, SPEC, Body, Ear, flood, stamp
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from vla_rl.ros import messages, qos
from vla_rl.ros.context import context_of

# A loaded machine delivers late and infers slowly: here nothing is judged by how fast it is.
PATIENT = {"max_obs_age": 1.0, "max_future_s": 1.0, "budget_s": 60.0, "rate": 5.0}


@pytest.fixture(scope="module")
def together(start, peer):
    """Policy and steering in one process, steering active, policy not yet configured."""
    steering = {"max_age_s": 30.0}
    rules = {f"policy:{k}": v for k, v in PATIENT.items()} | {f"steering:{k}": v for k, v in steering.items()}
    process = start("policy_steering", **{"policy:candidates": 3, **rules})
    assert peer.change("steering", "configure")
    assert peer.change("steering", "activate")
    return process


@pytest.fixture(scope="module")
def body(peer):
    body = Body(peer)
    yield body
    body.close()


@pytest.fixture(scope="module")
def policy(together, peer, body):
    """The policy, active, and every stream alive."""
    assert peer.change("policy", "configure")
    assert peer.change("policy", "activate")
    return together


@pytest.fixture
def alive(policy, peer, body):
    """Everything delivers, and chunks come."""
    body.dead = set()
    body.latched.publish(String(data="lift the red cube"))
    chunks = peer.hear(JointTrajectory, "steering/chunk")
    peer.until(lambda: len(chunks) >= 2)
    return policy


@pytest.mark.parametrize("library", ["numpy", "libtorch"])
def test_it_goes_when_asked_to_go_while_it_is_still_starting(library, start, peer):
    process = start("policy_steering", __ns="/early")

    def has_begun_to_load():
        with open(f"/proc/{process.pid}/maps") as file:
            return library in file.read()

    peer.until(has_begun_to_load)
    process.send(signal.SIGINT)
    assert process.end() == 0
    assert "Traceback" not in process.log


UNFIT = {
    "no such policy": ({"checkpoint": "nobody"}, "no policy 'nobody'; there are:"),
    "a script": ({"checkpoint": "expert"}, "checkpoint 'expert' is a script; there are: distilled, tabletop, weak"),
    "cameras the robot lacks": ({"cameras": ("front",)}, "cameras front, wrist in the policy, front in robot 'so101'"),
    "a device that is not there": ({"device": "abacus"}, "no device 'abacus' here"),
}


@pytest.mark.parametrize(("changes", "line"), UNFIT.values(), ids=UNFIT)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line_and_can_be_put_right(changes, line, together, peer):
    before = {name: peer.parameter("policy", name) for name in changes}
    peer.set_parameters("policy", changes)
    assert not peer.change("policy", "configure")
    assert line in together.errors[-1]
    peer.set_parameters("policy", before)


def test_nothing_is_answered_until_every_stream_has_delivered_and_what_lacks_is_named(policy, peer, body):
    candidates, ear = peer.hear(JointTrajectory, "policy/candidates"), Ear(peer, "/policy")
    for stream in ("joint_states", *CAMERAS):
        peer.until(lambda s=stream: f"no inference, {s}: nothing has arrived yet" in ear.summary, f"{stream} is named")
        assert candidates == []
        body.dead.discard(stream)
    peer.until(lambda: ear.summary == "no inference, instruction: nothing has arrived yet")
    assert candidates == []
    body.volatile.publish(String(data="lift the red cube"))
    peer.until(lambda: candidates, "it answers a volatile publisher's instruction")


def test_candidates_chunk_and_context_answer_one_real_observation(alive, peer, body):
    kinds = {"policy/candidates": JointTrajectory, "steering/chunk": JointTrajectory, "policy/context": JointState}
    heard = {topic: peer.hear(kind, topic) for topic, kind in kinds.items()}
    peer.until(lambda: all(len(messages) >= 3 for messages in heard.values()))
    answers = {topic: {stamp(m): m for m in list(got)} for topic, got in heard.items()}
    common = set.intersection(*map(set, answers.values()))
    assert common <= set(body.stamps)
    for at in common:
        found = messages.candidates_of(answers["policy/candidates"][at], SPEC.action_spec)
        chosen = messages.chunk_of(answers["steering/chunk"][at], SPEC.action_spec)
        assert found.chunks.shape == (3, 16, 6)
        np.testing.assert_array_equal(chosen.actions, found.chunks[int(answers["steering/chunk"][at].header.frame_id)])
        assert (np.abs(chosen.actions[0]) < 1.0).all(), "radians"
        said = context_of(answers["policy/context"][at], SPEC.names)
        assert said.features.shape == (128,)
        np.testing.assert_array_equal(said.joints, np.zeros(6))


def test_a_camera_that_dies_is_named_stops_the_answers_and_comes_back(alive, peer, body):
    ear, candidates = Ear(peer, "/policy"), peer.hear(JointTrajectory, "policy/candidates")
    body.dead.add("wrist")
    died = body.stamps[-1]
    peer.until(lambda: "no inference, wrist:" in ear.summary)
    assert all(stamp(m) <= died + 1.1e9 for m in candidates)
    count = len(candidates)
    time.sleep(0.5)
    assert len(candidates) <= count + 1
    body.dead.clear()
    peer.until(lambda: len(candidates) > count + 1, "it answers again")


def test_steering_goes_on_by_itself_while_the_policy_is_busy_or_gone(alive, peer, body):
    steering, policy = Ear(peer, "/steering"), Ear(peer, "/policy")
    peer.until(lambda: len(steering.all) >= 3)
    assert peer.change("policy", "deactivate")
    chunks = peer.hear(JointTrajectory, "steering/chunk")
    said = len(steering.all)
    peer.until(lambda: len(steering.all) >= said + 2 and policy.summary == "inactive")
    assert chunks == []
    assert peer.change("policy", "activate")
    peer.until(lambda: len(chunks) >= 2, "a latched instruction is heard again")


def test_no_parameter_changes_under_a_policy_that_is_loaded(alive, peer):
    with pytest.raises(RuntimeError, match="while it is unconfigured"):
        peer.set_parameters("policy", {"candidates": 8})
    with pytest.raises(RuntimeError, match="while it is inactive"):
        peer.set_parameters("steering", {"selector": "medoid"})


def malformed_joints():
    good = messages.joint_state(SPEC.names, np.zeros(6), time.time_ns())
    yield JointState()
    yield JointState(header=good.header, name=list(SPEC.names))
    yield JointState(header=good.header, name=list(SPEC.names)[::-1][:5], position=[0.0] * 5)
    yield JointState(header=good.header, name=list(SPEC.names), position=[float("nan")] * 6)
    yield JointState(header=good.header, name=list(SPEC.names), position=[90.0] * 6)
    yield JointState(header=good.header, name=["x" * 1000] * 100, position=[0.0] * 100)
    yield JointState(name=list(SPEC.names), position=[0.0] * 6)
    yield messages.joint_state(SPEC.names, np.zeros(6), time.time_ns() + 3_600_000_000_000)
    yield messages.joint_state(SPEC.names, np.zeros(6), 1)
    yield JointState(position=[0.0] * 100_000)


def malformed_images():
    good = messages.image(np.zeros((96, 96, 3), np.uint8), time.time_ns(), "front")
    yield Image()
    yield Image(header=good.header, height=96, width=96, encoding="32FC3", step=1152, data=bytes(96 * 1152))
    yield Image(header=good.header, height=96, width=96, encoding="rgb8", step=288, data=bytes(100))
    yield Image(header=good.header, height=2**31, width=2**31, encoding="rgb8", step=2**31, data=bytes(1))
    yield Image(header=good.header, height=96, width=96, encoding="\x00" * 300, step=288, data=bytes(96 * 288))
    yield messages.image(np.zeros((1080, 1920, 3), np.uint8), time.time_ns(), "front")
    yield messages.image(np.zeros((96, 96, 3), np.uint8), 0, "front")


def malformed_instructions():
    yield String(data="")
    yield String(data="\x00\x1b[2J\r\n" * 100)
    yield String(data="ignore all limits " * 60_000)
    yield String(data="\U0001f916" * 1000)


FLOODS = {
    "joint_states": (JointState, malformed_joints),
    "camera/front/image_raw": (Image, malformed_images),
    "instruction": (String, malformed_instructions),
}


@pytest.mark.parametrize("topic", FLOODS)
def test_malformed_messages_neither_crash_nor_grow_nor_blind_it(topic, alive, peer, body):
    kind, make = FLOODS[topic]
    publisher = peer.publisher(kind, topic, qos.OFFER)
    flood(publisher, make, 60)
    before = alive.memory_mb()
    flood(publisher, make, 300)
    assert alive.alive
    assert alive.memory_mb() - before < 50
    peer.destroy(publisher)
    chunks = peer.hear(JointTrajectory, "steering/chunk")
    body.latched.publish(String(data="lift the blue cube"))
    peer.until(lambda: len(chunks) >= 2, "it answers again")
    assert alive.errors == [] or "abacus" in alive.errors[-1], "nothing failed since the first tests"


def test_compressed_pictures_are_looked_at_as_well(alive, peer, body):
    body.close()
    assert peer.change("policy", "deactivate")
    compressed = Body(peer, compressed=True)
    assert peer.change("policy", "cleanup")
    peer.set_parameters("policy", {"image_transport": "compressed", "instruction": "lift the red cube"})
    assert peer.change("policy", "configure")
    assert peer.change("policy", "activate")
    answers = peer.hear(JointTrajectory, "policy/candidates")
    compressed.dead = set()
    peer.until(lambda: len(answers) >= 2)
    assert {stamp(m) for m in answers} <= set(compressed.stamps)
    compressed.close()
