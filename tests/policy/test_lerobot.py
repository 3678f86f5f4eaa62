"""LeRobot's own command-line tools train and evaluate our policy, through the plug-in."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from policy_lerobot_tools import JOINTS, install_plugin, run_tool, write_dataset
from safetensors.numpy import load_file

from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.lerobot_stats import adopt_metadata, window
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.types import ActionKind, ActionSpec


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def trained(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write_dataset(folder / "data")
    run_tool(
        "lerobot.scripts.lerobot_train", plugin, "--policy.type=vla_rl", "--policy.device=cpu",
        "--policy.push_to_hub=false", "--dataset.repo_id=local/tiny", f"--dataset.root={folder / 'data'}",
        "--steps=2", "--batch_size=4", "--num_workers=0", "--save_freq=2", f"--output_dir={folder / 'out'}",
        "--wandb.enable=false", "--policy.inference_steps=2",
    )  # fmt: skip
    return folder / "out/checkpoints/000002/pretrained_model"


def test_lerobot_train_writes_a_policy_with_statistics_of_relative_chunks(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["type"] == "vla_rl"
    assert config["action_mode"] == "relative"
    assert config["state_names"] == JOINTS
    offset = load_file(trained / "model.safetensors")["normalizer.action.offset"]
    assert offset.shape == (16, 6)
    assert np.abs(offset[0, :5]).max() < 2.0, "the first relative action is one small step"
    assert VLAPolicy.from_pretrained(trained).config.spec is not None


def test_lerobot_eval_runs_the_trained_policy_in_our_environment(plugin: Path, trained: Path, tmp_path: Path) -> None:
    run_tool(
        "lerobot.scripts.lerobot_eval", plugin, f"--policy.path={trained}", "--policy.device=cpu", "--env.type=vla_rl",
        "--env.task=Lift-v0", "--env.episode_length=10", "--eval.n_episodes=1", "--eval.batch_size=1",
        f"--output_dir={tmp_path}",
    )  # fmt: skip
    assert json.loads((tmp_path / "eval_info.json").read_text())["overall"]["n_episodes"] == 1


def test_chunks_never_cross_an_episode() -> None:
    frames = np.arange(7, dtype=np.float32)[:, None]
    chunks, is_pad = window(frames, np.array([0, 0, 0, 1, 1, 1, 1]), np.array([1, 5]), horizon=4)
    assert chunks[:, :, 0].tolist() == [[1, 2, 2, 2], [5, 6, 6, 6]]
    assert is_pad.tolist() == [[False, False, True, True], [False, False, True, True]]


def test_a_set_of_ones_own_arm_tells_what_its_actions_mean(tmp_path: Path) -> None:
    names = ["left.pos", "right.pos"]
    said = ActionSpec(ActionKind.JOINT_ABSOLUTE, tuple(names), ("deg", "percent"), (-90.0, 0.0), (90.0, 100.0))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/vla_rl.json").write_text(json.dumps({"action_spec": said.to_dict()}))
    features = {"observation.state": {"names": names}, "action": {"names": names}}
    meta = SimpleNamespace(root=tmp_path, fps=30, robot_type="my_arm", features=features)
    config = VLAConfig()
    adopt_metadata(config, meta)
    assert config.spec == said
    others = VLAConfig()
    adopt_metadata(others, SimpleNamespace(**{**vars(meta), "features": {"action": {"names": ["a", "b"]}}}))
    assert others.spec is None
