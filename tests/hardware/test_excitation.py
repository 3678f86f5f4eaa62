"""`vla-rl sysid --drive` on the twin: it asks, swings the arm, leaves it where it was, and tells what it found."""

import json
from dataclasses import replace

import numpy as np
import pytest
from twin_desk import SPEC

from vla_rl import build_arm
from vla_rl.build_arm import make_servo_replay
from vla_rl.cli import main
from vla_rl.robot import Fault
from vla_rl.rollout import excitation
from vla_rl.rollout.excitation import excite

SECONDS = 4.0


@pytest.fixture
def patient(monkeypatch):
    """Where the machine is slow an arm is not silent yet."""
    make = build_arm.make_arm
    monkeypatch.setattr(build_arm, "make_arm", lambda config, **how: make(replace(config, silence_s=2.0), **how))


def where(desk):
    return ["--port", str(desk.twin.port), "--calibration", str(desk.folder)]


def test_it_moves_nothing_unless_somebody_agrees(desk, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "no")
    assert main(["sysid", "--drive", *where(desk)]) == 1
    assert "not driven: nobody agreed" in capsys.readouterr().err
    assert desk.twin.status()["follower"]["counts"]["goals"] == 0


def test_the_arm_swings_is_fitted_and_left_where_it_was(desk, patient, tmp_path, capsys):
    before = desk.twin.joints()
    result = tmp_path / "found.json"
    assert main(["sysid", "--drive", *where(desk), "--seconds", str(SECONDS), "--yes", "--json", str(result)]) == 0
    found = json.loads(result.read_text())
    assert found["seconds"] == pytest.approx(SECONDS + excitation.LEAD_S, abs=1.0)
    assert "gain" in capsys.readouterr().out
    assert desk.torque() == [False] * 6
    assert desk.twin.joints() == pytest.approx(before, abs=np.radians(3))


def test_joints_are_seen_at_many_moments_of_a_period(desk):
    motion, _ = excite(desk.arm(), make_servo_replay(SPEC.name), 1.0)
    since = motion.seen_ns - motion.asked_ns[np.searchsorted(motion.asked_ns, motion.seen_ns, side="right") - 1]
    assert np.ptp(since[motion.seen_ns > motion.asked_ns[0]]) * 1e-9 > 0.2 / SPEC.rate


def test_it_stays_within_the_joints_limits(desk):
    simulate = make_servo_replay(SPEC.name)
    for passed in np.linspace(0, 60, 500):
        path = excitation._path(SPEC.high, simulate, passed)
        assert (path >= SPEC.low).all()
        assert (path <= SPEC.high).all()


def test_a_fault_ends_it(desk):
    arm = desk.arm()
    desk.fault("overheated", servo=3)
    with pytest.raises(Fault, match="elbow_flex"):
        excite(arm, make_servo_replay(SPEC.name), 60.0)
