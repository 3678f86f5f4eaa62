"""`hf:` backbones, on real architectures at random tiny size."""

import shutil
from pathlib import Path

import pytest
import torch
from policy_samples import small_batch, small_policy
from policy_tiny_models import ARCHITECTURES
from safetensors import safe_open
from transformers import AutoProcessor

from vla_rl.policy.hf import BackboneError, load_model
from vla_rl.policy.hf_inputs import Preparation
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


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("layer", [0, 1, 2, -1])
def test_only_layers_up_to_the_chosen_one_run_and_give_what_they_give_in_the_whole_model(
    name: str, layer: int, models: dict[str, Path]
) -> None:
    policy = small_policy(backbone=f"hf:{models[name]}", backbone_mode="frozen", backbone_layer=layer)
    seen: list[torch.Tensor] = []
    policy.backbone.project.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ran = []
    for block in policy.backbone.model.get_decoder().layers:
        block.register_forward_hook(lambda *_: ran.append(1))
    batch = small_batch(policy.config)
    policy.encode(batch)
    assert len(ran) == layer % 3
    frames = torch.stack([batch[key] for key in policy.config.image_features], dim=1)
    _, whole = load_model(str(models[name]), None, pretrained=True, dtype=torch.float32)
    with torch.no_grad():
        output = whole.eval()(
            **Preparation(policy.backbone.processor)(frames, batch["task"]), output_hidden_states=True
        )
    assert torch.equal(seen[0], output.hidden_states[layer])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_processor_is_asked_once_an_instruction_and_its_halves_give_what_it_gives(
    name: str, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = AutoProcessor.from_pretrained(models[name])
    prepare, tasks = Preparation(processor), ["lift the red cube", "push the blue cube the red cube", "lift"]
    frames = torch.randint(0, 256, (3, 2, 3, 32, 32), dtype=torch.uint8)
    first = prepare(frames, tasks, multiple=1)
    whole = prepare._whole(frames, tasks)
    assert first.keys() == whole.keys()
    assert all(torch.equal(first[key], whole[key]) for key in whole)
    monkeypatch.setattr(type(processor), "__call__", None)
    again = prepare(frames.flip(0), tasks[::-1], multiple=1)
    assert all(torch.equal(again[key][0], whole[key][2]) for key in ("input_ids", "attention_mask"))
    assert torch.equal(again["pixel_values"].flatten(0, -4)[:2], whole["pixel_values"].flatten(0, -4)[-2:])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_row_does_not_depend_on_the_length_of_the_others_instructions(name: str, models: dict[str, Path]) -> None:
    policy = small_policy(backbone=f"hf:{models[name]}", backbone_mode="frozen")
    batch = small_batch(policy.config, 2)
    short, long = (
        policy.encode(batch | {"task": ["lift the cube", other]}) for other in ("push", "push the cube " * 9)
    )
    assert torch.equal(short.features.tokens[0], long.features.tokens[0])
    assert torch.equal(short.pooled[0], long.pooled[0])


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
