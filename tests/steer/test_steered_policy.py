"""The steered pair as a LeRobot policy: what it answers, what it refuses, and lerobot-eval runs it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from steer_critics import NAMES, save

from vla_rl import cli
from vla_rl.bench.policy import default_policy
from vla_rl.policy.folder import fingerprint
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.served import load_served
from vla_rl.robot import arm_spec
from vla_rl.rollout.judge import Judge
from vla_rl.steer.choose import ChooserConfig
from vla_rl.steer.critic import LoadedCritic
from vla_rl.steer.modeling_vla_rl_steered import SteeredPolicy, pair
from vla_rl.steer.steered import Steered

ROOT = Path(__file__).resolve().parents[2]
SPEC = arm_spec("so101").lerobot_action_spec


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a policy and of a critic that reads its features."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    policy, _ = default_policy()
    for parameter in policy.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    policy.save_pretrained(folder / "policy")
    mark = fingerprint(folder / "policy")
    return folder / "policy", save(folder / "critic", features=128, window=8, fingerprint=mark)


@pytest.fixture(scope="module")
def paired(parts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pair") / "steered"
    pair(*parts, out, candidates=6, selector="argmax")
    return out


def batch(count: int = 2) -> dict:
    random = np.random.default_rng(0)
    images = {f"observation.images.{c}": torch.from_numpy(random.random((count, 3, 96, 96), np.float32)) for c in "ab"}
    named = dict(zip(("observation.images.front", "observation.images.wrist"), images.values(), strict=True))
    state = torch.from_numpy(random.normal(size=(count, 6)).astype(np.float32))
    return named | {"observation.state": state, "task": ["lift the red cube"] * count}


def test_the_chunk_is_the_one_that_the_critic_values_most(paired):
    policy, seen = SteeredPolicy.from_pretrained(paired), batch()
    answers = policy.answers(seen)
    for answer in answers:
        assert answer.candidates.shape == (6, 16, 6)
        assert answer.choice.index == answer.values.mean(0).argmax()
        np.testing.assert_array_equal(answer.chunk, answer.candidates[answer.choice.index])
    again = SteeredPolicy.from_pretrained(paired).predict_action_chunk(seen)
    np.testing.assert_array_equal(again.numpy(), np.stack([answer.chunk for answer in answers]))


def test_every_decision_has_noise_of_its_own(paired):
    policy, seen = SteeredPolicy.from_pretrained(paired), batch()
    assert (policy.predict_action_chunk(seen) - policy.predict_action_chunk(seen)).abs().max() > 1e-3


def test_select_action_walks_through_the_chosen_chunk_as_far_as_the_critic_saw(paired):
    policy, seen = SteeredPolicy.from_pretrained(paired), batch()
    assert policy.config.n_action_steps == 8
    chunk = SteeredPolicy.from_pretrained(paired).predict_action_chunk(seen)
    walked = torch.stack([policy.select_action(seen) for _ in range(9)], dim=1)
    torch.testing.assert_close(walked[:, :8], chunk[:, :8])
    assert (walked[:, 8] - chunk[:, 8]).abs().max() > 1e-6
    policy.reset()
    assert not policy._actions


def test_a_chunk_answers_the_observation_that_it_is_asked_for_and_none_before_it(paired):
    policy, seen = SteeredPolicy.from_pretrained(paired), batch()
    elsewhere = {**seen, "observation.state": seen["observation.state"] + 50.0}
    policy.select_action(seen)
    after = policy.predict_action_chunk(elsewhere)  # relative to the state: 50 degrees further
    fresh = SteeredPolicy.from_pretrained(paired)
    fresh._decisions = 2
    torch.testing.assert_close(after, fresh.predict_action_chunk(elsewhere))


def test_it_is_saved_and_loaded_as_a_whole(paired, tmp_path):
    SteeredPolicy.from_pretrained(paired).save_pretrained(tmp_path / "copy")
    copy = SteeredPolicy.from_pretrained(tmp_path / "copy")
    one, other = (p.predict_action_chunk(batch()) for p in (copy, SteeredPolicy.from_pretrained(paired)))
    torch.testing.assert_close(one, other)


def test_without_a_critic_blind_rules_work_and_the_first_is_the_policy_itself(parts, tmp_path):
    steered = pair(parts[0], None, tmp_path / "first", candidates=3, selector="first")
    answer = steered.answers(batch(1))[0]
    np.testing.assert_array_equal(answer.chunk, answer.candidates[0])
    assert answer.values is None


def test_a_deterministic_policy_is_perturbed(parts, tmp_path):
    steered = pair(*parts, tmp_path / "out", candidates=5, draws=1, spread=0.2, selector="argmax")
    candidates = steered.answers(batch(1))[0].candidates
    assert len({chunk.tobytes() for chunk in candidates}) == 5


def test_a_pair_may_be_guided_while_its_chunks_are_drawn(parts, tmp_path):
    plain = pair(*parts, tmp_path / "plain", candidates=3, selector="first")
    guided = pair(*parts, tmp_path / "guided", candidates=3, selector="first", guide="gradient", guide_temperature=0.01)
    again = SteeredPolicy.from_pretrained(tmp_path / "guided")
    drawn = [policy.answers(batch(1))[0].candidates for policy in (plain, guided, again)]
    assert np.abs(drawn[1] - drawn[0]).max() > 1e-3
    np.testing.assert_array_equal(drawn[2], drawn[1])


def test_the_command_pairs_with_what_it_was_told(parts, tmp_path):
    out = tmp_path / "out"
    arguments = [str(parts[0]), "--critic", str(parts[1]), "--guide", "fk", "--seed", "5", "--out", str(out)]
    arguments += ["--candidates", "4"]
    assert cli.main(["pair", *arguments]) == 0
    config = SteeredPolicy.from_pretrained(out).config
    assert (config.guide, config.seed) == ("fk", 5)


REFUSED = {
    "a selector that needs a critic": ({"selector": "argmax"}, None, "critic.json"),
    "an unknown selector": ({"selector": "best"}, None, "unknown selector 'best'; there are: first"),
    "no candidate": ({"candidates": 0, "selector": "first"}, None, "candidates must be at least 1, got 0"),
    "guidance of perturbed draws": ({"guide": "fk", "draws": 1}, {}, "guide goes without draws"),
    "a particle alone": ({"guide": "fk", "candidates": 1}, {}, "fk resamples among candidates, and there would be 1"),
    "guidance that there is not": ({"guide": "push"}, {}, "unknown guidance 'push'; there are: fk, gradient"),
    "a critic of another policy": ({}, {"fingerprint": "f" * 64}, "policy f{12} in the critic, .* in the policy"),
    "a critic of fewer joints": ({}, {"action_dim": 5}, "action size 5 in the critic, 6 in the policy"),
    "a critic of the same joints in another order": (
        {},
        {"names": NAMES[::-1]},
        r"action names \['gripper.pos', .* in the critic, \['shoulder_pan.pos', .* in the policy",
    ),
    "a critic of another state": ({}, {"state_dim": 5}, "state size 5 in the critic, 6 in the policy"),
    "fewer actions executed than are valued": (
        {"n_action_steps": 3},
        {},
        "actions executed of a chunk 8 in the critic, 3 in the policy",
    ),
    "a critic of longer chunks": ({}, {"window": 17}, "chunks of 17 actions or more in the critic, 16 in the policy"),
    "a critic that failed its report": ({}, {"report": "fail"}, "failed its report .rank correlation 0.02"),
    "one critic alone with lcb": ({}, {"ensemble": 1}, "'lcb' needs an ensemble of at least 2 critics, this one has 1"),
}


@pytest.mark.parametrize(("options", "critic", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line_and_leaves_nothing(options, critic, message, parts, tmp_path):
    folder = None if critic is None else save(tmp_path / "critic", **{"features": 128, "window": 8, **critic})
    with pytest.raises(ValueError, match=message) as refused:
        pair(parts[0], folder, tmp_path / "out", **options)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_critic_that_looks_at_more_than_the_policy_is_refused_before_it_meets_an_observation(parts, tmp_path):
    served, critic = load_served(parts[0]), LoadedCritic.load(save(tmp_path / "critic", features=128, eyes=parts[0]))
    seen = {key: feature for key, feature in served.config.input_features.items() if "wrist" not in key}
    served.config = SimpleNamespace(**{**vars(served.config), "type": served.config.type, "input_features": seen})
    with pytest.raises(ValueError, match=r"looks at observation\.images\.wrist, which the policy is not given"):
        Steered(served, critic, ChooserConfig(selector="argmax"), 2)


@pytest.mark.parametrize("options", [{"selector": "argmax"}, {"selector": "first", "guide": "fk"}])
def test_a_critic_that_looks_at_more_frames_than_there_are_is_refused(parts, tmp_path, options):
    """It would see the newest frame twice, as if nothing ever moved."""
    base, _ = default_policy()
    config = copy.deepcopy(base.config)
    config.n_obs_steps = 2
    eyes = VLAPolicy(config)
    eyes.normalizer.load_state_dict(base.normalizer.state_dict())
    eyes.save_pretrained(tmp_path / "eyes")
    folder = save(tmp_path / "critic", features=128, window=8, eyes=tmp_path / "eyes")
    said = "the critic's encoder wants 2 frames; the policy's observation comes with one"
    with pytest.raises(ValueError, match=said):
        pair(parts[0], folder, tmp_path / "out", **options)
    judge, drawer = Judge(LoadedCritic.load(folder), 1), SimpleNamespace(horizon=16, frames=1, name="here")
    world = SimpleNamespace(name="lift", features={}, action=SPEC)
    with pytest.raises(ValueError, match="wants 2 frames; an observation of here comes with one"):
        judge.check(world, drawer, 8)


def test_a_failed_report_can_be_overruled(parts, tmp_path):
    folder = save(tmp_path / "critic", features=128, window=8, report="fail")
    assert pair(parts[0], folder, tmp_path / "out", trust_critic=True) is not None


def test_lerobot_eval_runs_the_pair_in_our_environment(paired, tmp_path):
    plugin = install_plugin(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(plugin), str(ROOT)]), "HF_HUB_OFFLINE": "1"}
    arguments = [f"--policy.path={paired}", "--policy.device=cpu", "--env.type=vla_rl", "--env.task=Lift-v0"]
    arguments += ["--env.episode_length=10", "--eval.n_episodes=1", "--eval.batch_size=1", f"--output_dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.lerobot_eval", *arguments],
        env=environment | {"MUJOCO_GL": "egl", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "eval_info.json").read_text())["overall"]["n_episodes"] == 1


def install_plugin(folder: Path) -> Path:
    """Build the plug-in's wheel from a copy of its sources and install it into a folder of its own."""
    source, target = folder / "source", folder / "site"
    shutil.copytree(ROOT / "plugins/lerobot_policy_vla_rl", source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    return target
