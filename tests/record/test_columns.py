"""Steps to the schema's columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.record.columns import columns
from vla_rl.robot import arm_spec
from vla_rl.types import Episode, Observation, Outcome, Source, Step, Termination

SPEC = arm_spec("so101")


def step(t: int, **changes: object) -> Step:
    rng = np.random.default_rng(t)
    image = rng.integers(0, 256, (6, 8, 3), np.uint8)
    observation = Observation(rng.uniform(SPEC.low, SPEC.high), {"front": image}, "go", 1_700_000_000_000_000_001 + t)
    labels = {"labels.points": rng.normal(size=(2, 3))}
    return replace(
        Step(observation, rng.uniform(-1, 1, 6), rng.uniform(-1, 1, 6), Source.POLICY, labels=labels), **changes
    )


def episode(steps: list[Step], outcome: Outcome = Outcome.SUCCESS) -> Episode:
    return Episode(steps, "go", outcome, Termination.SUCCESS, 30.0, {"seed": 3})


@settings(max_examples=25, deadline=None)
@given(sources=st.lists(st.tuples(st.sampled_from(Source), st.booleans()), min_size=1, max_size=8))
def test_every_step_keeps_who_acted_what_was_done_and_what_was_proposed(sources: list) -> None:
    steps = [step(t, source=s, **({} if known else {"proposed": None})) for t, (s, known) in enumerate(sources)]
    out, meta = columns(episode(steps), SPEC)
    for t, s in enumerate(steps):
        assert np.allclose(SPEC.from_lerobot(out["action"][t]), s.executed, atol=1e-5)
        assert np.allclose(SPEC.from_lerobot(out["observation.state"][t]), s.observation.joints, atol=1e-5)
        proposed = s.executed if s.proposed is None else s.proposed
        assert np.allclose(SPEC.from_lerobot(out["policy_action"][t]), proposed, atol=1e-5)
        assert out["policy_action_valid"][t] == (s.proposed is not None)
        assert out["intervention"][t] == (s.source is Source.HUMAN)
        assert out["stamp_ns"][t] == s.observation.stamp_ns
        assert np.array_equal(out["observation.images.front"][t], s.observation.images["front"])
        assert np.array_equal(out["labels.points"][t], s.labels["labels.points"].reshape(-1).astype(np.float32))
    assert np.isfinite(out["policy_action"]).all()
    assert {len(v) for v in out.values()} == {len(steps)}
    assert meta["names"]["action"][0] == "shoulder_pan.pos"
    assert meta["units"]["action"] == ["deg"] * 5 + ["percent"]
    assert (meta["seed"], meta["instruction"], meta["outcome"], meta["fps"]) == (3, "go", "success", 30.0)


def test_a_time_limit_is_a_truncation_and_never_a_terminal() -> None:
    out, _ = columns(episode([step(0), step(1, truncated=True)], Outcome.FAILURE), SPEC)
    assert not out["next.done"].any()
    assert out["next.truncated"].tolist() == [False, True]
    assert not out["next.success"].any()


def test_success_is_marked_on_the_last_frame_only() -> None:
    steps = [step(0, success=True), step(1, success=True), step(2, success=True, terminated=True)]
    out, _ = columns(episode(steps))
    assert out["next.success"].tolist() == [False, False, True]
    assert out["next.done"].tolist() == [False, False, True]


def test_the_critics_word_on_the_chosen_candidate_is_kept() -> None:
    out, _ = columns(episode([step(0, values=np.array([0.1, 0.7]), candidate=1, chunk_index=4), step(1)]))
    assert out["chunk.value"].tolist() == pytest.approx([0.7, 0.0])
    assert out["chunk.selected"].tolist() == [1, -1]
    assert out["chunk.index"].tolist() == [4, -1]


def test_without_a_robot_the_numbers_stay_as_they_are() -> None:
    steps = [step(0), step(1)]
    out, meta = columns(episode(steps), action_spec=SPEC.action_spec)
    assert np.array_equal(out["action"], np.stack([s.executed for s in steps]).astype(np.float32))
    assert meta["units"]["action"] == ["rad"] * 6


def test_an_episode_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="without steps"):
        columns(episode([]))
