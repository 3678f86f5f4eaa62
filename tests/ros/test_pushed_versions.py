"""Weights that a learner pushes while the policy runs: they take over between two answers, and bad ones do no harm."""

import shutil

import pytest
from policy_body import Body, Ear
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from vla_rl import build
from vla_rl.learn import versions

PATIENT = {"max_obs_age": 1.0, "max_future_s": 1.0, "budget_s": 60.0, "rate": 5.0}


@pytest.fixture
def body(peer):
    body = Body(peer)
    yield body
    body.close()


def test_a_pushed_version_takes_over_and_one_that_does_not_load_is_passed_over(start, peer, body, tmp_path):
    process = start("policy_node", **PATIENT, versions=str(tmp_path / "v"))
    assert peer.change("policy", "configure")
    assert peer.change("policy", "activate")
    body.dead = set()
    body.latched.publish(String(data="lift the red cube"))
    ear, answers = Ear(peer, "/policy"), peer.hear(JointTrajectory, "policy/candidates")
    peer.until(lambda: answers and ear.values.get("version") == "0")
    shipped = build.check_policy("tabletop")
    versions.publish(tmp_path / "v", shipped)
    peer.until(lambda: ear.values.get("version") == "1")
    broken = tmp_path / "broken"
    shutil.copytree(shipped, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    versions.publish(tmp_path / "v", broken)
    peer.until(lambda: f"versions in {tmp_path / 'v'}" in process.log)
    count = len(answers)
    peer.until(lambda: len(answers) > count + 2)
    assert ear.values["version"] == "1"
    assert "Traceback" not in process.log
