"""`hf:` backbones, on real architectures at random tiny size."""

import shutil
from pathlib import Path

import pytest
import torch
from policy_samples import small_batch, small_policy
from policy_tiny_models import ARCHITECTURES
from safetensors import safe_open

from vla_rl.policy.hf import BackboneError
from vla_rl.policy.modeling_vla_rl import VLAPolicy

LORA = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save(folder / name) for name, save in ARCHITECTURES.items()}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_words_images_and_state_reach_the_context_and_gradients_only_what_is_trained(name: str, models: dict) -> None:
    policy = small_policy(backbone=f"hf:{models[name]}", backbone_mode="frozen").train()
    batch = small_batch(policy.config)
    loss, _ = policy.loss(batch)
    loss.backward()
    assert all(p.grad is None for p in policy.backbone.model.parameters())
    assert not policy.backbone.model.training
    assert policy.backbone.project[0].weight.grad is not None
    before = policy.eval().encode(batch).pooled
    for change in (
        {"task": ["push the blue cube"] * 4},
        {"observation.images.wrist": batch["observation.images.wrist"].flip(-1)},
        {"observation.state": batch["observation.state"] + 20},
    ):
        assert not torch.allclose(policy.encode(batch | change).pooled, before), change.keys()


@pytest.mark.parametrize("mode", ["frozen", "lora", "train"])
def test_a_checkpoint_carries_what_was_trained_and_names_what_it_lacks(
    mode: str, models: dict[str, Path], tmp_path: Path
) -> None:
    source = shutil.copytree(models["idefics3"], tmp_path / "model")
    policy = small_policy(backbone=f"hf:{source}", backbone_mode=mode, backbone_layer=1, lora_targets=LORA)
    policy.save_pretrained(tmp_path / "checkpoint")
    with safe_open(tmp_path / "checkpoint/model.safetensors", "pt") as file:
        kept = [key for key in file.keys() if key.startswith("backbone.model.")]  # noqa: SIM118
    assert {"frozen": not kept, "lora": all("lora_" in k for k in kept) and kept, "train": len(kept) > 20}[mode]
    batch, noise = small_batch(policy.config), torch.randn(4, 8, 6)
    chunk = policy.predict_action_chunk(batch, noise)
    loaded = VLAPolicy.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(loaded.predict_action_chunk(batch, noise), chunk)
    shutil.rmtree(source)
    if mode == "train":
        alone = VLAPolicy.from_pretrained(tmp_path / "checkpoint")
        assert torch.equal(alone.predict_action_chunk(batch, noise), chunk)
    else:
        with pytest.raises(BackboneError, match=f"'hf:{source}' cannot be loaded.*no such folder"):
            VLAPolicy.from_pretrained(tmp_path / "checkpoint")


def test_padding_of_shorter_instructions_does_not_reach_the_chunk(models: dict[str, Path]) -> None:
    policy = small_policy(backbone=f"hf:{models['idefics3']}", backbone_mode="frozen")
    batch = small_batch(policy.config, 2) | {"task": ["lift", "push the red blue cube the red cube"]}
    noise = torch.randn(2, 8, 6)
    alone = {k: v[:1] for k, v in batch.items()}
    torch.testing.assert_close(
        policy.predict_action_chunk(batch, noise)[:1],
        policy.predict_action_chunk(alone, noise[:1]),
        atol=1e-2,
        rtol=1e-3,
    )


def test_lora_adapts_only_its_own_weights(models: dict[str, Path]) -> None:
    policy = small_policy(backbone=f"hf:{models['paligemma']}", backbone_mode="lora", lora_targets=LORA).train()
    trained = [n for n, p in policy.backbone.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_a_wrong_layer_target_or_source_is_told_in_one_line(models: dict[str, Path]) -> None:
    source = models["idefics3"]
    for changes, message in [
        ({"backbone": f"hf:{source}", "backbone_layer": 9}, "has layers 0..2, not 9"),
        ({"backbone": f"hf:{source}", "backbone_mode": "lora", "lora_targets": ["nope"]}, "lora_targets do not fit"),
        ({"backbone": "hf:nobody/nothing"}, "'hf:nobody/nothing' cannot be loaded"),
    ]:
        with pytest.raises(BackboneError, match=message) as caught:
            small_policy(**changes)
        assert "\n" not in str(caught.value)
