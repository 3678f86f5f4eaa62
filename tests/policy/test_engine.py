"""Engine: a checkpoint that fits the robot answers in radians; one that does not is refused with both sides."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_samples import small_policy

from vla_rl import build
from vla_rl.policy.engine import Engine, EngineConfig, NothingFiniteError, load_engine
from vla_rl.policy.folder import choose_device
from vla_rl.robot import arm_spec
from vla_rl.types import ActionKind, Observation

SPEC = arm_spec("so101")
CAMERAS = ("front", "wrist")
TABLETOP = build.shipped()["tabletop"]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(TABLETOP, SPEC, CAMERAS, EngineConfig(candidates=5, device="cpu"))


def look(
    stamp: int = 1, size: tuple[int, int] = (96, 96), words: str = "lift the red cube", at: float = 0.0, cameras=CAMERAS
):
    random = np.random.default_rng(stamp)
    images = {name: random.integers(0, 256, (*size, 3), np.uint8) for name in cameras}
    return Observation(np.full(6, at), images, words, stamp)


def save(folder: Path, **changes) -> Path:
    small_policy(**changes).save_pretrained(folder)
    return folder


def test_candidates_are_finite_absolute_radians_near_the_arm_they_answer(engine):
    found = engine.candidates([look(stamp=77, at=0.3)])
    assert found.chunks.shape == (5, 16, 6)
    assert found.spec == SPEC.action_spec
    assert found.spec.kind is ActionKind.JOINT_ABSOLUTE
    assert (found.stamp_ns, found.dt) == (77, 1 / 30)
    assert np.abs(found.chunks[:, 0, :5] - 0.3).max() < 0.5, "the first actions are a step away"
    assert found.context.shape == (128,)
    assert engine.stochastic
    assert engine.notes == []


def test_it_answers_what_the_evaluation_in_process_would_execute(engine):
    """Same network, same noise: the engine is another road to the same numbers."""
    from vla_rl.policy.modeling_vla_rl import VLAPolicy

    seen = look(at=0.2)
    batch = {f"observation.images.{n}": torch.from_numpy(np.moveaxis(i, -1, 0).copy()) for n, i in seen.images.items()}
    batch |= {"observation.state": torch.from_numpy(SPEC.to_lerobot(seen.joints)).float(), "task": seen.instruction}
    policy = VLAPolicy.from_pretrained(TABLETOP)
    found = engine.candidates([seen])
    generator = torch.Generator().manual_seed(found.seed)
    expected = policy.sample(policy.encode(batch), len(found.chunks), generator).numpy()
    np.testing.assert_allclose(SPEC.to_lerobot(found.chunks), expected, atol=1e-2)


def test_an_observation_alone_decides_the_seed_and_the_seed_what_is_drawn(engine):
    first, again, other = (engine.candidates([look(stamp=s)]) for s in (5, 5, 6))
    assert first.seed == again.seed != other.seed
    np.testing.assert_array_equal(first.chunks, again.chunks)
    another = Engine(engine._served, SPEC, CAMERAS, EngineConfig(candidates=5, seed=1))
    assert another.candidates([look(stamp=5)]).seed != first.seed


def test_the_backbone_runs_once_however_many_candidates(engine):
    calls = []
    hook = engine._served._policy.backbone.register_forward_hook(lambda *_: calls.append(1))
    engine.candidates([look()])
    hook.remove()
    assert len(calls) == 1


def test_pictures_of_any_size_are_fitted_as_training_did(engine):
    assert np.isfinite(engine.candidates([look(size=(480, 640))]).chunks).all()


def test_what_is_drawn_follows_the_words(engine):
    lift, push = (engine.candidates([look(words=w)]).chunks for w in ("lift the red cube", "push the blue cube"))
    assert np.abs(lift - push).max() > 0.01


def test_a_candidate_that_is_not_finite_is_dropped_and_counted_and_nothing_finite_is_an_error(engine, monkeypatch):
    served, sample = engine._served, engine._served.sample

    def broken(bad):
        def draw(context, k, seed):
            chunks = sample(context, k, seed)
            chunks[bad, 3, 2] = np.nan
            return chunks

        monkeypatch.setattr(served, "sample", draw)

    before = engine.counts["candidates_not_finite"]
    broken([0, 3])
    assert len(engine.candidates([look()]).chunks) == 3
    assert engine.counts["candidates_not_finite"] == before + 2
    broken(range(5))
    with pytest.raises(NothingFiniteError, match="none of 5"):
        engine.candidates([look()])


class Slow:
    """A policy whose answers take as long as they are told to; a second is what the engine measures, not the wall's."""

    notes, deterministic, action_scale = (), False, np.ones(6, np.float32)

    def __init__(self, clock, encode=0.02, fixed=0.03, each=0.01):
        self.config = small_policy().config
        self.clock, self.encode_s, self.fixed, self.each, self.load = clock, encode, fixed, each, 1.0

    def encode(self, history, task):
        self.clock.now += self.load * self.encode_s

    def sample(self, context, k, seed):
        self.clock.now += self.load * (self.fixed + k * self.each)
        return np.random.default_rng(seed).normal(size=(k, 8, 6)).astype(np.float32)

    def features(self, context, layer="pooled"):
        return None


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(("budget", "expected"), [(0.05, 1), (0.0999, 4), (0.101, 5), (10.0, 16), (0.0, 16)])
def test_as_many_candidates_are_drawn_as_the_budget_allows_and_load_is_followed(budget, expected, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("vla_rl.policy.engine.time", clock)
    slow = Slow(clock)
    engine = Engine(slow, SPEC, CAMERAS, EngineConfig(candidates=16, budget_s=budget))
    assert engine.k == expected
    slow.load = 3.0
    for i in range(100):
        engine.candidates([look(i)])
    assert 1 <= engine.k <= expected
    assert engine.k == max(1, expected // 3) or budget != 0.101
    slow.load = 1.0
    for i in range(100):
        engine.candidates([look(i)])
    assert abs(engine.k - expected) <= 1


STRANGERS = [f"{letter}.pos" for letter in "abcdef"]
RADIANS = {**SPEC.action_spec.to_dict(), "names": list(SPEC.lerobot_action_spec.names)}
SEVEN = replace(SPEC, joints=(*SPEC.joints, SPEC.joints[0]))
UNFIT = {
    "a camera is not there": ({}, {"cameras": ("front",)}, r"cameras front, wrist in the policy, front in robot"),
    "another rate": ({"fps": 10.0}, {}, r"fps 10.0 in the policy, 30.0 in robot 'so101'"),
    "other joints": ({"state_names": STRANGERS}, {}, r"state names \['a.pos'.* in the policy, .*'shoulder_pan.pos'"),
    "other units": ({"action_spec": RADIANS}, {}, r"it gives joint_absolute in rad, not joint_absolute in deg/percent"),
    "no units": ({"action_spec": None}, {}, r"declares no units .* robot 'so101' takes joint_absolute in deg/percent"),
    "a robot of seven joints": ({}, {"spec": SEVEN}, r"state size 6 in the policy, 7 in robot"),
}


@pytest.mark.parametrize(("changes", "robot", "message"), UNFIT.values(), ids=UNFIT)
def test_our_checkpoint_that_does_not_fit_is_refused_with_both_sides(changes, robot, message, tmp_path):
    folder = save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    spec, cameras = robot.get("spec", SPEC), robot.get("cameras", CAMERAS)
    with pytest.raises(ValueError, match=message) as refusal:
        load_engine(folder, spec, cameras, EngineConfig(device="cpu"))
    assert "\n" not in str(refusal.value)


def test_history_reaches_a_policy_that_wants_it(tmp_path):
    engine = load_engine(save(tmp_path, n_obs_steps=2), SPEC, CAMERAS, EngineConfig(device="cpu"))
    assert engine.frames == 2
    still, moved = [look(1), look(2)], [replace(look(1), joints=np.full(6, 0.4)), look(2)]
    assert np.isfinite(engine.candidates(still[1:]).chunks).all(), "at a start there is one"
    assert np.abs(engine.candidates(still).chunks - engine.candidates(moved).chunks).max() > 1e-4


def test_a_folder_that_cannot_be_loaded_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"no config.json"):
        load_engine(tmp_path, SPEC, CAMERAS, EngineConfig(device="cpu"))
    shutil.copytree(TABLETOP, tmp_path / "cut")
    weights = tmp_path / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated"):
        load_engine(tmp_path / "cut", SPEC, CAMERAS, EngineConfig(device="cpu"))


def test_a_device_or_number_format_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no device 'abacus'"):
        choose_device("abacus")
    with pytest.raises(ValueError, match="unknown dtype 'int3'; there are: float32, bfloat16, float16"):
        load_engine(TABLETOP, SPEC, CAMERAS, EngineConfig(dtype="int3"))


def test_a_layer_that_the_policy_does_not_have_is_refused_before_anything_is_answered():
    with pytest.raises(ValueError, match="unknown layer 'top'; there are: pooled, tokens"):
        load_engine(TABLETOP, SPEC, CAMERAS, EngineConfig(device="cpu", layer="top"))


def test_fewer_denoising_steps_say_about_the_same():
    """As many as the checkpoint has are the checkpoint's own; fewer cost less and aim at the same place."""
    own, same, few = (
        load_engine(TABLETOP, SPEC, CAMERAS, EngineConfig(candidates=2, device="cpu", denoising_steps=steps))
        for steps in (0, 10, 3)
    )
    chunks = [engine.candidates([look()]).chunks for engine in (own, same, few)]
    assert np.array_equal(chunks[0], chunks[1])
    assert 0 < np.abs(chunks[2] - chunks[0]).mean() < 0.1


def test_half_the_precision_says_about_the_same(engine):
    half = load_engine(TABLETOP, SPEC, CAMERAS, EngineConfig(candidates=2, device="cpu", dtype="bfloat16"))
    full = load_engine(TABLETOP, SPEC, CAMERAS, EngineConfig(candidates=2, device="cpu"))
    assert np.abs(half.candidates([look()]).chunks - full.candidates([look()]).chunks).max() < 0.2
