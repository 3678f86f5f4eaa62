"""steering_node with a critic in a folder: it follows it by topic, and refuses what it may not follow."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from policy_body import SPEC, Ear, stamp
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from vla_rl.learn import versions
from vla_rl.ros import messages, qos
from vla_rl.ros.context import context
from vla_rl.steer.critic import LoadedCritic, RobotCritic
from vla_rl.types import Candidates, Observation
from vla_rl.value.checkpoint import save_critic, write_report
from vla_rl.value.config import CriticConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import critic_stats

FEATURES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("critic"))


def save(folder, ensemble=2, eyes=None, seed=0):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    features, whose = (128, "own") if eyes else (FEATURES, "policy")
    config = CriticConfig(features, 6, 6, 4, 0.0, 1.0, ensemble=ensemble, width=32, encoder=whose)
    critic, random = ChunkCritic(config), np.random.default_rng(0)
    shapes = [(200, features), (200, 6), (200, 4, 6)]
    critic.set_stats(critic_stats(*(random.normal(size=shape) for shape in shapes), None, ()))
    card = {"policy_type": "vla_rl", "policy_fingerprint": "", "names": list(SPEC.lerobot_action_spec.names)}
    save_critic(folder, critic, None, card | {"data": [], "algorithm": "none", "steps": 0}, eyes)
    return folder


@pytest.fixture(scope="module")
def steering(start, peer, folder):
    process = start("steering_node", selector="lcb", critic=str(folder), max_age_s=30.0, deadline_s=10.0)
    assert peer.change("steering", "configure")
    assert peer.change("steering", "activate")
    return process


def candidates(count=6, seed=0):
    random, now = np.random.default_rng(seed), time.time_ns()
    seen = Observation(random.uniform(-0.3, 0.3, 6), {}, "lift the red cube", now)
    chunks = SPEC.from_lerobot(random.normal(size=(count, 16, 6)))
    features = random.normal(size=FEATURES).astype(np.float32)
    return Candidates(chunks, SPEC.action_spec, 1 / 30, now, features, seed, seen)


@pytest.fixture
def ask(steering, peer):
    """Publish candidates, with their context or without, until the choice is heard; returns chunk and values."""
    out = {
        "policy/context": peer.publisher(JointState, "policy/context", qos.OFFER),
        "policy/candidates": peer.publisher(JointTrajectory, "policy/candidates", qos.OFFER),
    }
    chunks, values = peer.hear(JointTrajectory, "steering/chunk"), peer.hear(JointState, "steering/values")

    def once(seed, known=True):
        asked = []

        def publish():
            asked.append(candidates(seed=seed))
            if known:
                out["policy/context"].publish(context(asked[-1]))
                time.sleep(0.05)
            out["policy/candidates"].publish(messages.candidates(asked[-1]))

        stamps = {}
        peer.every(0.3, publish, lambda: stamps.update({stamp(v): v for v in values}) or bool(stamps))
        found = next(a for a in asked if a.stamp_ns in stamps)
        peer.until(lambda: any(stamp(c) == found.stamp_ns for c in chunks))
        return found, next(c for c in chunks if stamp(c) == found.stamp_ns), stamps[found.stamp_ns]

    yield once
    for publisher in out.values():
        peer.destroy(publisher)


def test_the_choice_over_topics_is_the_one_in_memory_and_values_and_index_are_published(ask, peer, folder):
    found, chunk, said = ask(1)
    critic = RobotCritic(LoadedCritic.load(folder), SPEC)
    values = critic.values(critic.prepare(found)[0], found.chunks)
    best = int((values.mean(0) - values.std(0)).argmax())
    assert chunk.header.frame_id == str(best)
    assert said.header.frame_id == f"{best} lcb"
    assert list(said.name) == [f"candidate_{i}" for i in range(6)]
    np.testing.assert_allclose(said.position, values.mean(0), atol=1e-5)
    np.testing.assert_allclose(said.velocity, values.std(0), atol=1e-5)
    ear = Ear(peer, "/steering")
    peer.until(lambda: "p99_ms/6" in ear.values)


def test_a_set_without_its_context_is_answered_with_the_first_and_the_reason_is_told(ask, peer):
    ear = Ear(peer, "/steering")
    _, chunk, said = ask(2, known=False)
    assert chunk.header.frame_id == "0"
    assert "no finite value" in said.header.frame_id
    peer.until(lambda: "the candidates come without the observation's state" in ear.summary)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """A tiny policy as the encoder of a critic."""
    from vla_rl.bench.policy import default_policy

    folder = tmp_path_factory.mktemp("eyes")
    default_policy()[0].save_pretrained(folder)
    return folder


def test_apart_a_critic_looks_for_itself_at_the_pictures_that_the_policy_saw(start, peer, tmp_path, eyes):
    critic = save(tmp_path, eyes=eyes)
    rule = {"selector": "argmax", "critic": str(critic)}
    process = start("steering_node", **rule, max_age_s=30.0, deadline_s=10.0, __ns="/own")
    assert peer.change("/own/steering", "configure"), process.errors
    assert peer.change("/own/steering", "activate"), process.errors
    robot = RobotCritic(LoadedCritic.load(critic), SPEC)
    out = {camera: peer.publisher(Image, f"/own/camera/{camera}/image_raw", qos.OFFER) for camera in robot.cameras}
    out["context"] = peer.publisher(JointState, "/own/policy/context", qos.OFFER)
    out["candidates"] = peer.publisher(JointTrajectory, "/own/policy/candidates", qos.OFFER)
    values, asked = peer.hear(JointState, "/own/steering/values"), {}

    def publish():
        found, random = candidates(seed=len(asked)), np.random.default_rng(len(asked))
        images = {camera: random.integers(0, 256, (96, 96, 3), np.uint8) for camera in robot.cameras}
        ages = {camera: 0.01 * number for number, camera in enumerate(images)}
        for camera, picture in images.items():
            out[camera].publish(messages.image(picture, found.stamp_ns - round(ages[camera] * 1e9), camera))
        time.sleep(0.1)
        found = replace(found, observation=replace(found.observation, images=images, ages=ages))
        out["context"].publish(context(found, [found.observation]))
        time.sleep(0.05)
        out["candidates"].publish(messages.candidates(found))
        asked[found.stamp_ns] = found

    peer.every(0.5, publish, lambda: any(np.isfinite(v.position).all() for v in values))
    said = next(v for v in values if np.isfinite(v.position).all())
    found = asked[stamp(said)]
    np.testing.assert_allclose(said.position, robot.values(robot.prepare(found)[0], found.chunks).mean(0), atol=1e-5)
    for publisher in out.values():
        peer.destroy(publisher)


def test_what_it_may_not_or_cannot_follow_is_refused_in_one_line(start, peer, tmp_path):
    alone, failed = save(tmp_path / "alone", ensemble=1), save(tmp_path / "failed")
    write_report(failed, {"verdict": "fail", "reason": "rank correlation 0.02 is below 0.3"})
    process = start("steering_node", selector="argmax", __ns="/other")
    wanted = {
        "'argmax' needs a critic": {},
        "no critic '/nowhere'": {"critic": "/nowhere"},
        "failed its report (rank correlation 0.02 is below 0.3)": {"critic": str(failed)},
        "'lcb' needs an ensemble of at least 2 critics, this one has 1": {"critic": str(alone), "selector": "lcb"},
    }
    for line, changes in wanted.items():
        if changes:
            peer.set_parameters("/other/steering", changes)
        assert not peer.change("/other/steering", "configure")
        assert line in process.errors[-1]
    peer.set_parameters("/other/steering", {"critic": str(failed), "trust_critic": True})
    assert peer.change("/other/steering", "configure")
    assert "trusted all the same" in process.log


def test_a_pushed_critic_takes_over_and_one_that_cannot_be_followed_is_passed_over(start, peer, folder, tmp_path):
    pushed, patient = tmp_path / "v", {"max_age_s": 30.0, "deadline_s": 10.0}
    process = start("steering_node", __ns="/live", selector="lcb", critic=str(folder), versions=str(pushed), **patient)
    assert peer.change("/live/steering", "configure")
    assert peer.change("/live/steering", "activate")
    out = {
        "context": peer.publisher(JointState, "/live/policy/context", qos.OFFER),
        "candidates": peer.publisher(JointTrajectory, "/live/policy/candidates", qos.OFFER),
    }
    values, asked = peer.hear(JointState, "/live/steering/values"), {}

    def publish():
        found = candidates(seed=1)
        asked[found.stamp_ns] = found
        out["context"].publish(context(found))
        time.sleep(0.05)
        out["candidates"].publish(messages.candidates(found))

    def judged(by, since=0):
        """Whether a critic's values of what was asked after some were heard."""
        robot = RobotCritic(LoadedCritic.load(by), SPEC)
        said = [v for v in values if stamp(v) > since and stamp(v) in asked and np.isfinite(v.position).all()]
        return any(
            np.allclose(v.position, robot.values(robot.prepare(found)[0], found.chunks).mean(0), atol=1e-5)
            for v in said[-1:]
            for found in [asked[stamp(v)]]
        )

    peer.every(0.3, publish, lambda: judged(folder))
    other = save(tmp_path / "other", seed=7)
    versions.publish(pushed, other)
    peer.every(0.3, publish, lambda: judged(other))
    assert "version 1 is loaded and takes over" in process.log
    broken = tmp_path / "broken"
    shutil.copytree(other, broken)
    (broken / "critic.safetensors").write_bytes(b"no weights")
    versions.publish(pushed, broken)
    peer.every(0.3, publish, lambda: f"versions in {pushed}" in process.log)
    versions.publish(pushed, save(tmp_path / "alone", ensemble=1))
    peer.every(0.3, publish, lambda: "'lcb' needs an ensemble of at least 2 critics" in process.log)
    since = time.time_ns()
    peer.every(0.3, publish, lambda: judged(other, since))
    assert "Traceback" not in process.log
    for publisher in out.values():
        peer.destroy(publisher)
