"""Engine: policies of LeRobot's own run through its factory and processors, and give candidates like ours."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from policy_lerobot_tiny import CAMERAS, lerobot_policy

from vla_rl.policy.engine import EngineConfig, load_engine
from vla_rl.policy.folder import load_lerobot
from vla_rl.policy.perturb import PerturbConfig
from vla_rl.robot import arm_spec
from vla_rl.types import Observation

SPEC = arm_spec("so101")


def look(stamp: int = 1, at: float = 0.0) -> Observation:
    random = np.random.default_rng(stamp)
    images = {name: random.integers(0, 256, (96, 96, 3), np.uint8) for name in CAMERAS}
    return Observation(np.full(6, at), images, "lift the red cube", stamp)


def test_a_deterministic_lerobot_policy_gives_one_candidate_and_the_same_as_lerobot(tmp_path):
    folder = lerobot_policy(tmp_path, "act")
    engine = load_engine(folder, SPEC, CAMERAS, EngineConfig(candidates=8, device="cpu"))
    assert not engine.stochastic
    assert engine.k == 1
    assert "LeRobot's units of 'so101' at 30 Hz" in engine.notes[0]
    seen = look(at=0.2)
    chunk = SPEC.to_lerobot(engine.candidates([seen]).chunks[0])
    parts = load_lerobot(folder, "cpu")
    batch = {
        f"observation.images.{n}": torch.from_numpy(np.moveaxis(i, -1, 0).copy())[None] / 255
        for n, i in seen.images.items()
    }
    batch |= {"observation.state": torch.from_numpy(SPEC.to_lerobot(seen.joints)).float()[None], "task": [""]}
    first = parts.after(parts.policy.select_action(parts.before(batch)))[0]
    np.testing.assert_allclose(chunk[0], first.detach().numpy(), atol=1e-3)


def test_perturbed_candidates_leave_the_robots_grippers_alone_also_where_the_policy_names_no_actions(tmp_path):
    config = EngineConfig(candidates=4, device="cpu", perturb=PerturbConfig(draws=1, scale=0.5))
    tweezers = replace(SPEC.joints[5], name="tweezers", lerobot_name="tweezers.pos")
    for spec in (SPEC, replace(SPEC, joints=(*SPEC.joints[:5], tweezers))):
        chunks = load_engine(lerobot_policy(tmp_path, "act"), spec, CAMERAS, config).candidates([look()]).chunks
        assert (chunks[1:, :, 5] == chunks[0, :, 5]).all()
        assert (chunks[1:, -1, :5] != chunks[0, -1, :5]).all()


@pytest.mark.parametrize("frames", [1, 2])
def test_a_stochastic_lerobot_policy_gives_different_candidates_from_one_seed(tmp_path, frames):
    folder = lerobot_policy(tmp_path, "diffusion", n_obs_steps=frames)
    engine = load_engine(folder, SPEC, CAMERAS, EngineConfig(candidates=3, device="cpu"))
    assert engine.stochastic
    assert engine.frames == frames
    torch.manual_seed(1)
    found = engine.candidates([look(1), look(2)][-frames:])
    torch.manual_seed(2)
    again = engine.candidates([look(1), look(2)][-frames:])
    assert found.chunks.shape == (3, 6, 6)
    assert np.abs(found.chunks[0] - found.chunks[1]).max() > 1e-3
    np.testing.assert_array_equal(found.chunks, again.chunks)


def test_a_lerobot_policy_denoises_in_as_many_steps_as_asked(tmp_path):
    folder = lerobot_policy(tmp_path, "diffusion")
    own, same, few = (
        load_engine(folder, SPEC, CAMERAS, EngineConfig(device="cpu", denoising_steps=steps)).candidates([look()])
        for steps in (0, 4, 1)
    )
    np.testing.assert_array_equal(own.chunks, same.chunks)
    assert np.abs(own.chunks - few.chunks).max() > 1e-3


def test_a_policy_that_does_not_denoise_is_refused_where_steps_are_asked_for(tmp_path):
    folder = lerobot_policy(tmp_path, "act")
    with pytest.raises(ValueError, match="policy type 'act' does not denoise: denoising_steps must be 0, got 5"):
        load_engine(folder, SPEC, CAMERAS, EngineConfig(device="cpu", denoising_steps=5))


def test_a_lerobot_policy_sees_the_frames_in_their_order(tmp_path):
    engine = load_engine(lerobot_policy(tmp_path, "diffusion"), SPEC, CAMERAS, EngineConfig(device="cpu"))
    there, back = engine.candidates([look(1), look(2)]), engine.candidates([look(2), replace(look(1), stamp_ns=2)])
    assert there.seed == back.seed
    assert np.abs(there.chunks - back.chunks).max() > 1e-6


UNFIT_LEROBOT = {
    "a camera": ({"cameras": ("front", "ceiling")}, "cameras ceiling in the policy, front, wrist in robot 'so101'"),
    "joints": ({"size": 7}, "state size 7 in the policy, 6 joints in robot 'so101'; action size 7"),
}


@pytest.mark.parametrize(("changes", "message"), UNFIT_LEROBOT.values(), ids=UNFIT_LEROBOT)
def test_a_lerobot_policy_that_does_not_fit_is_refused_with_both_sides(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_engine(lerobot_policy(tmp_path, "act", **changes), SPEC, CAMERAS, EngineConfig(device="cpu"))


def test_a_lerobot_policy_without_statistics_is_refused(tmp_path):
    folder = lerobot_policy(tmp_path, "act")
    for part in folder.glob("policy_*processor*.safetensors"):
        part.unlink()
    for path in folder.glob("policy_*processor.json"):
        text = json.loads(path.read_text())
        for step in text["steps"]:
            step.pop("state_file", None)
        path.write_text(json.dumps(text))
    with pytest.raises(ValueError, match=r"no statistics for .*observation.state.*action"):
        load_engine(folder, SPEC, CAMERAS, EngineConfig(device="cpu"))
