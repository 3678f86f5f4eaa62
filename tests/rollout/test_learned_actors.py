import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
import toy_env
from lerobot.configs import FeatureType, PolicyFeature
from safetensors.torch import load_file, save_file

from vla_rl import build
from vla_rl.cli import main
from vla_rl.data.dataset import open_dataset
from vla_rl.data.sidecars import read_candidates
from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import compute_stats
from vla_rl.rollout.evaluate import EvalConfig, evaluate
from vla_rl.rollout.learned import Plan, join, load_actor
from vla_rl.rollout.play import Job, Player
from vla_rl.rollout.workers import play
from vla_rl.steer.choose import ChooserConfig
from vla_rl.types import ActionKind, ActionSpec

ENV = build.EnvConfig(env="gymnasium:toy_env:toy/Reach-v0", max_steps=12)
TASK = "toy/Reach-v0"
INPUTS = {
    "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
    "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
}
OUTPUTS = {"action": PolicyFeature(FeatureType.ACTION, (2,))}


def save_policy(folder, **changes):
    torch.manual_seed(0)
    spec = ActionSpec(ActionKind.RAW, ("x", "y"), ("1", "1"), (-0.2, -0.2), (0.2, 0.2)).to_dict()
    small = {"width": 32, "inference_steps": 3}
    config = VLAConfig(
        input_features=INPUTS, output_features=OUTPUTS, device="cpu", fps=10, action_spec=spec, horizon=8,
        n_action_steps=4, **{**small, **changes},
    )  # fmt: skip
    states, actions = torch.randn(50, 2), torch.randn(50, 8, 2) * 0.1
    stats = compute_stats(states, actions, torch.zeros(50, 8, dtype=torch.bool), config.relative_mask)
    policy = VLAPolicy(config, stats=stats)
    with torch.no_grad():
        for parameter in policy.parameters():  # a fresh head gives zeros, whatever it sees
            parameter.add_(torch.randn_like(parameter) * 0.05)
    policy.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"))


def run(checkpoint, count=5, workers=0, env=ENV, selector="first", **plan):
    plan = Plan(chooser=ChooserConfig(selector=selector), **plan)
    policy = build.PolicyConfig(checkpoint, plan=plan, device="cpu")
    jobs = [Job(i, TASK, i, keep_columns=True) for i in range(count)]
    return list(play(jobs, partial(build.make_player, env, policy, threads=1), workers))


def actions(rollouts):
    return [r.columns["action"] for r in rollouts]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_results_do_not_depend_on_who_else_is_in_the_batch_nor_on_workers(checkpoint):
    expected = actions(run(checkpoint, slots=1))
    assert_equal(expected, actions(run(checkpoint, slots=3)))
    assert_equal(expected, actions(run(checkpoint, slots=16)))
    assert_equal(expected, actions(run(checkpoint, slots=2, workers=1)))


def test_an_episode_does_not_depend_on_the_length_of_the_others_instructions(checkpoint):
    texts = {
        "short": "go to the left corner",
        "long": "please " * 9 + "go to the left corner",
        "longer": "now " * 40 + "go",
    }

    def play_with(*tasks):
        def make_world(task):
            return build.make_world(dataclasses.replace(ENV, instruction=texts[task]), task)

        actor = load_actor(checkpoint, Plan(slots=4), "cpu")
        jobs = [Job(i, task, 7, keep_columns=True) for i, task in enumerate(tasks)]
        return [r.columns["policy_action"] for r in play(jobs, lambda: Player(make_world, actor), 0)]

    together = play_with(*texts)
    assert_equal(together, [play_with(task)[0] for task in texts])
    assert not np.array_equal(together[0], together[1])


def test_a_sampler_that_draws_noise_at_every_step_is_reproducible_too(tmp_path):
    checkpoint = save_policy(tmp_path, scheduler="ddpm")
    assert_equal(actions(run(checkpoint, count=3, slots=1)), actions(run(checkpoint, count=3, slots=3)))


def test_every_episode_has_sampling_noise_of_its_own(checkpoint):
    first, second = actions(run(checkpoint, count=2))
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize(("frames", "seen"), [(1, [0, 4, 8, 12]), (2, [0, 3, 4, 7, 8, 11, 12])])
def test_only_pictures_that_the_policy_will_see_are_drawn_and_the_episode_is_the_same(tmp_path, frames, seen):
    checkpoint = save_policy(tmp_path, n_obs_steps=frames)
    drawn = dataclasses.replace(ENV, env="gymnasium:toy_env:toy/Drawn-v0")
    make = partial(build.make_player, drawn, build.PolicyConfig(checkpoint, plan=Plan(), device="cpu"), threads=1)
    metas = {}
    for film, pictures in ((False, seen), (True, list(range(13)))):
        toy_env.Drawn.pictures.clear()
        (rollout,) = play([Job(0, "toy/Drawn-v0", 0, film=film)], make, 0)
        metas[film] = rollout.meta
        assert toy_env.Drawn.pictures == pictures
    assert metas[False] == metas[True]


def test_chunks_are_executed_open_loop_for_the_set_number_of_steps(checkpoint):
    assert run(checkpoint, count=1)[0].columns["chunk.index"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert run(checkpoint, count=1, steps_per_chunk=6)[0].columns["chunk.index"].tolist() == [0] * 6 + [1] * 6


def test_the_first_candidate_of_many_is_executed_and_noted(checkpoint):
    columns = run(checkpoint, count=1, candidates=3)[0].columns
    assert columns["chunk.selected"].tolist() == [0] * 12
    assert np.isfinite(columns["policy_action"]).all()


@pytest.mark.parametrize("selector", ["random", "medoid"])
def test_a_selector_chooses_among_the_candidates_reproducibly_whoever_else_is_in_the_batch(checkpoint, selector):
    first = run(checkpoint, count=3, candidates=5, selector=selector, slots=1)
    second = run(checkpoint, count=3, candidates=5, selector=selector, slots=3)
    assert_equal(actions(first), actions(second))
    chosen = np.concatenate([rollout.columns["chunk.selected"] for rollout in first])
    assert len(set(chosen.tolist())) > 1
    assert set(chosen.tolist()) <= set(range(5))
    assert not np.array_equal(actions(first)[0], actions(run(checkpoint, count=1, candidates=5))[0])


def test_a_selector_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"unknown selector 'best'; there are: first, random, medoid, argmax"):
        build.plan("folder", selector="best")


def test_the_backbone_runs_once_an_observation_however_many_candidates(checkpoint, monkeypatch):
    actor = load_actor(checkpoint, Plan(candidates=8, slots=1, batch=1), "cpu")
    calls = []
    encode = VLAPolicy.encode
    monkeypatch.setattr(VLAPolicy, "encode", lambda self, batch: calls.append(1) or encode(self, batch))
    list(play([Job(0, TASK, 0)], lambda: Player(partial(build.make_world, ENV), actor), 0))
    assert len(calls) == 3


@pytest.mark.parametrize("how", ["temporal", "adaptive"])
def test_ensembles_join_overlapping_chunks(checkpoint, how):
    plain, joined = (actions(run(checkpoint, count=1, steps_per_chunk=2, ensemble=e))[0] for e in ("none", how))
    np.testing.assert_array_equal(plain[:2], joined[:2])
    assert not np.array_equal(plain[2:], joined[2:])


@pytest.mark.parametrize("how", ["none", "temporal", "adaptive"])
def test_predictions_that_agree_are_kept_by_every_ensemble(how):
    np.testing.assert_allclose(join(np.full((5, 3), 0.7, np.float32), how), 0.7, rtol=1e-6)


def test_several_frames_reach_a_policy_that_wants_them(tmp_path):
    checkpoint = save_policy(tmp_path, n_obs_steps=2)
    assert_equal(actions(run(checkpoint, count=2, slots=1)), actions(run(checkpoint, count=2, slots=2)))


def test_images_of_another_size_are_brought_to_the_policys(checkpoint):
    larger = build.EnvConfig(env=ENV.env, kwargs={"image_size": 64}, max_steps=3)
    assert run(checkpoint, count=1, env=larger)[0].columns["observation.images.top"].shape == (3, 64, 64, 3)


def test_a_world_that_does_not_fit_the_checkpoint_is_refused_with_both_sides(checkpoint):
    pusht = build.EnvConfig(env="gymnasium:gym_pusht:gym_pusht/PushT-v0", kwargs={"obs_type": "pixels_agent_pos"})
    policy = build.PolicyConfig(checkpoint, plan=Plan(), device="cpu")
    with pytest.raises(ValueError, match=r"needs 'observation.images.top', which .* gives: .*observation.image"):
        list(play([Job(0, "gym_pusht/PushT-v0", 0)], partial(build.make_player, pusht, policy), 0))


def test_a_chunk_shorter_than_the_steps_asked_of_it_is_refused(checkpoint):
    with pytest.raises(ValueError, match="--steps-per-chunk 9 is longer than the policy's chunk"):
        load_actor(checkpoint, Plan(steps_per_chunk=9), "cpu")


def save_act(folder, chunk=4):
    """A tiny ACT with its processors; its folder."""
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    torch.manual_seed(0)
    config = ACTConfig(
        input_features=INPUTS, output_features=OUTPUTS, device="cpu", pretrained_backbone_weights=None, dim_model=32,
        n_heads=2, dim_feedforward=32, n_encoder_layers=1, n_vae_encoder_layers=1, chunk_size=chunk,
        n_action_steps=chunk, push_to_hub=False,
    )  # fmt: skip
    ACTPolicy(config).save_pretrained(folder)
    spread = {"mean": torch.zeros(2), "std": torch.ones(2)}
    image = {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}
    stats = {"observation.state": spread, "action": spread, "observation.images.top": image}
    for part in make_pre_post_processors(config, dataset_stats=stats):
        part.save_pretrained(folder)
    return str(folder)


def test_any_lerobot_policy_folder_can_be_evaluated(tmp_path):
    save_act(tmp_path)
    make_player = partial(build.make_player, ENV, build.PolicyConfig(str(tmp_path), device="cpu"))
    results = [evaluate(EvalConfig((TASK,), 2), {}, make_player) for _ in range(2)]
    assert results[0] == results[1]
    assert results[0]["invalid"] == 0


def truncate(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def pickle_instead(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")


def pickle_under_its_name(folder):
    torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")


def without_statistics(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("normalizer.")}, folder / "model.safetensors")


def other_shapes(folder):
    edit(folder, width=64)


def broken_config(folder):
    (folder / "config.json").write_text("{")


def unknown_type(folder):
    edit(folder, type="no_such_policy")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


BAD = [truncate, pickle_instead, pickle_under_its_name, without_statistics, other_shapes, broken_config, unknown_type]


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_a_bad_checkpoint_is_refused_in_one_line_that_names_it(spoil, tmp_path, capsys):
    save_policy(tmp_path)
    spoil(tmp_path)
    arguments = [
        "eval",
        "--policy",
        str(tmp_path),
        "--env",
        ENV.env,
        "--episodes",
        "1",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "unexpected" not in lines[0]
    assert str(tmp_path) in lines[0] or "no_such_policy" in lines[0], lines


def test_all_candidates_of_a_rollout_are_kept_where_they_were_drawn(checkpoint):
    rollout = run(checkpoint, count=1, candidates=3, selector="random")[0]
    kept, columns = rollout.candidates, rollout.columns
    assert kept["row"].tolist() == [0, 4, 8]
    assert kept["chunks"].shape == (3, 3, 8, 2)
    chosen = kept["chunks"][np.arange(3), kept["selected"]]
    assert columns["chunk.selected"][kept["row"]].tolist() == kept["selected"].tolist()
    np.testing.assert_array_equal(columns["policy_action"], chosen[:, :4].reshape(12, 2))
    assert len(set(kept["seed"].tolist())) == 3


def test_a_collection_carries_its_candidates_into_the_data_set(checkpoint, tmp_path):
    flags = ["--env", ENV.env, "--policy", checkpoint, "--candidates", "3", "--selector", "random", "--workers", "0"]
    out, command = tmp_path / "out", ["collect", *flags, "--max-steps", "12"]
    assert main([*command, "--episodes", "1", "--out", str(out)]) == 0
    assert main([*command, "--episodes", "2", "--out", str(out)]) == 0
    table = read_candidates(out / "dataset")
    columns = open_dataset(out / "dataset").columns(["policy_action", "chunk.selected", "frame_index"])
    assert columns["frame_index"][table.rows].tolist() == [0, 4, 8] * 2
    first = table.chunks[np.arange(len(table.rows)), table.selected][:, 0]
    np.testing.assert_array_equal(first, columns["policy_action"][table.rows])
    assert main([*command, "--candidates", "2", "--episodes", "2", "--out", str(out)]) != 0, "another request"
