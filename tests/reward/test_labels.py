"""Labels beside a real collection, and the classifier on its frames."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vla_rl.cli import main
from vla_rl.data.cache import build
from vla_rl.data.outcomes import successes
from vla_rl.data.sidecars import read_column
from vla_rl.learn.classifier import train_classifier
from vla_rl.learn.classifier_config import ClassifierConfig
from vla_rl.reward.classifier import ClassifierReward, ClassifierShape, SuccessClassifier, labelled_frames
from vla_rl.reward.label import episodes, label
from vla_rl.reward.returns import monte_carlo
from vla_rl.reward.rule import make_reward


def collect(folder, policy, count, seed=0):
    arguments = ["--env", "gymnasium:toy_env:toy/Reach-v0", "--policy", policy, "--episodes", str(count)]
    assert main(["collect", *arguments, "--out", str(folder), "--workers", "0", "--seed", str(seed)]) == 0
    return folder / "dataset"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return collect(tmp_path_factory.mktemp("mixed"), "clumsy", 30)


@pytest.fixture(scope="module")
def classifier(mixed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    config = ClassifierConfig(
        data=(str(mixed),), out=str(folder / "run"), cache=str(folder / "cache"), steps=150, batch=32, lr=3e-3,
        warmup=5, ema=0.9, image_size=32, width=32, shift=0, checkpoint_interval=150, log_interval=50, threads=1,
        device="cpu", tensorboard=False, prefetch=0,
    )  # fmt: skip
    return train_classifier(config, progress=False)


@pytest.mark.parametrize(
    ("name", "options"), [("sparse", {}), ("step-penalty", {"penalty": 2.0}), ("time-to-success", {})]
)
def test_labels_are_the_rules_rewards_and_their_returns_episode_by_episode(mixed, tmp_path, name, options):
    made = label(mixed, name, f"t.{name}", 0.9, options)
    cache = build(mixed, tmp_path, None)
    rule = make_reward(name, **options)
    reward, about = read_column(mixed, "reward", f"t.{name}", len(cache))
    value, _ = read_column(mixed, "return", f"t.{name}", len(cache))
    for number, episode in enumerate(episodes(cache)):
        rows = slice(cache.starts[number], cache.starts[number + 1])
        np.testing.assert_allclose(reward[rows], rule(episode))
        expected = monte_carlo(rule(episode), 0.9, terminal=episode.terminal, tail=rule.tail)
        np.testing.assert_allclose(value[rows], expected, rtol=1e-5)
    assert (about["low"], about["high"], about["gamma"]) == (rule.low, rule.high, 0.9)
    assert made["episodes"] == 30


def test_the_command_labels_a_collection_and_says_what_came_of_it(mixed, tmp_path, capsys):
    out = tmp_path / "result.json"
    command = ["dataset", "reward", str(mixed.parent), "--reward", "sparse", "--tag", "five", "--option", "success=5"]
    assert main([*command, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["return_of_episodes"]["high"] <= 5.0
    assert "reward_five.parquet" in capsys.readouterr().out
    for wrong, message in ((["--option", "x"], "must read KEY=VALUE"), (["--gamma", "2"], "must be in [0, 1]")):
        assert main([*command, *wrong]) != 0
        assert message in capsys.readouterr().err


def test_a_dense_reward_of_a_set_without_progress_is_refused_in_one_line(mixed):
    with pytest.raises(ValueError, match="has no column 'progress' for a dense reward"):
        label(mixed, "dense", "d")


def test_a_classifier_learns_success_from_frames_and_labels_where_it_comes(mixed, classifier, tmp_path):
    assert classifier["score"] < 0.2, "balanced error on episodes that it has not seen"
    cache = build(mixed, tmp_path, None)
    rule = ClassifierReward(classifier["checkpoint"], 0.5)
    last = np.array([rule(episode)[-1] for episode in episodes(cache)])
    truth = np.array(successes(cache))
    assert last[truth].mean() - last[~truth].mean() > 0.5
    label(mixed, "classifier", "seen", options={"folder": classifier["checkpoint"]}, cache_root=tmp_path)
    reward, _ = read_column(mixed, "reward", "seen", len(cache))
    assert set(np.unique(reward)) == {0.0, 1.0}


def test_the_command_takes_the_folder_of_the_run_that_made_a_classifier(mixed, classifier, tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_RL_CACHE", str(tmp_path))
    asked = ["dataset", "reward", str(mixed), "--reward", "classifier", "--tag", "run"]
    run = Path(classifier["checkpoint"]).parents[1]
    assert not (run / "classifier.json").exists()
    assert main([*asked, "--option", f"folder={run}"]) == 0
    assert main([*asked, "--option", f"folder={tmp_path}"]) == 1


def test_a_saved_classifier_says_the_same_when_loaded(classifier, tmp_path):
    model = SuccessClassifier.load(classifier["checkpoint"])
    model.save(tmp_path)
    for name, value in SuccessClassifier.load(tmp_path).state_dict().items():
        np.testing.assert_array_equal(value, model.state_dict()[name])
    with pytest.raises(ValueError, match="is not a success classifier"):
        SuccessClassifier.load(tmp_path / "nothing")


def test_every_weight_of_a_classifier_learns():
    """lerobot 0.6.1's reward classifier runs its whole camera encoder without gradients: those layers never train."""
    torch.manual_seed(0)
    model = SuccessClassifier(ClassifierShape(("a", "b"), size=32, width=16))
    images = {name: torch.randint(0, 256, (8, 3, 40, 40), dtype=torch.uint8) for name in "ab"}
    model(images, ["lift the red cube", "push it"] * 4).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize(("policy", "count"), [("expert", 2), ("random", 2)], ids=["successes alone", "failures alone"])
def test_data_of_one_class_is_refused_in_one_line(tmp_path, policy, count):
    root = collect(tmp_path / "data", policy, count)
    config = ClassifierConfig(data=(str(root),), out=str(tmp_path / "run"), cache=str(tmp_path), device="cpu")
    with pytest.raises(ValueError, match=r"episodes that succeeded and . that failed in .*needs both") as error:
        train_classifier(config, progress=False)
    assert "\n" not in str(error.value)


def test_no_episodes_at_all_are_refused(mixed, tmp_path):
    with pytest.raises(ValueError, match="0 episodes that succeeded and 0 that failed"):
        labelled_frames([build(mixed, tmp_path, None)], [np.zeros(0, np.int64)])


def test_frames_near_a_success_are_neither(mixed, tmp_path):
    cache = build(mixed, tmp_path, None)
    found = labelled_frames([cache], [np.arange(len(cache.episodes))], last=1, margin=3)
    won = [n for n, success in enumerate(successes(cache)) if success]
    assert found.positive.tolist() == [cache.starts[n + 1] - 1 for n in won]
    for number in won:
        neither = np.arange(max(cache.starts[number + 1] - 4, cache.starts[number]), cache.starts[number + 1] - 1)
        assert not np.isin(neither, found.negative).any()
    assert not np.isin(found.positive, found.negative).any()


def test_frames_behind_a_success_do_not_count_as_none(mixed, tmp_path):
    """An episode that was recorded on for a while: success is noted in the middle, and last a frame shows it."""
    cache = build(mixed, tmp_path, None)
    number = list(successes(cache)).index(True)
    start, end = cache.starts[number : number + 2].tolist()
    noted = (start + end) // 2
    went_on = replace(cache, columns={**cache.columns, "next.success": np.arange(len(cache)) == noted})
    found = labelled_frames([cache, went_on], [np.arange(len(cache.episodes)), np.array([number])], margin=2)
    mine = found.negative[found.negative >= len(cache)] - len(cache)
    assert mine.tolist() == list(range(start, noted - 2))
    assert end - 1 + len(cache) in found.positive
