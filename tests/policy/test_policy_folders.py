"""Policy folders: what was saved is what is loaded; anything else is refused in one line."""

import json
from pathlib import Path

import pytest
import torch
from policy_samples import small_batch, small_policy
from safetensors.torch import load_file, save_file

from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import MissingStatisticsError
from vla_rl.policy.weights import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_policy().save_pretrained(tmp_path)
    return tmp_path


def test_a_loaded_policy_acts_like_the_saved_one_bit_for_bit(folder: Path) -> None:
    policy, noise = small_policy(), torch.randn(4, 8, 6)
    batch = small_batch(policy.config)
    loaded = VLAPolicy.from_pretrained(folder)
    assert torch.equal(loaded.predict_action_chunk(batch, noise), policy.predict_action_chunk(batch, noise))
    assert loaded.config.spec == policy.config.spec


def test_a_policy_folder_holds_no_pickle_and_what_lerobot_needs(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json",
    }  # fmt: skip


def fails(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        VLAPolicy.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    fails(folder, "truncated or no safetensors file")


def test_a_pickle_is_refused_unread(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    fails(folder, "pytorch_model.bin would be a pickle, which is never read")
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
    fails(folder, "no safetensors file")


def test_other_shapes_are_refused_with_both_sides(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"horizon": 10}))
    fails(folder, r"other shapes: .*\(10, \d+\) here, \(8, \d+\) there")


def test_missing_and_unknown_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["extra"] = weights.pop("head.position")
    save_file(weights, folder / "model.safetensors")
    fails(folder, r"lacks head.position, and has besides extra")


def test_no_statistics_no_loading(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["normalizer.action.scale"][:] = torch.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(MissingStatisticsError, match="no statistics for action"):
        VLAPolicy.from_pretrained(folder)


def test_a_broken_or_foreign_config_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text("{")
    fails(folder, r"cannot read .*config.json")
    (folder / "config.json").write_text(json.dumps(config | {"type": "nonsense"}))
    fails(folder, "nonsense")
    (folder / "config.json").unlink()
    fails(folder, "cannot read")


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder nowhere/near/here"):
        VLAPolicy.from_pretrained("nowhere/near/here")
