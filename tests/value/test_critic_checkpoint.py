"""Critic folders: what was saved comes back bit for bit, and what does not fit is refused, both sides named."""

import json
from pathlib import Path

import pytest
import torch
from critic_samples import CARD, seen, small_config, small_critic, small_value
from safetensors.torch import load_file, save_file

from vla_rl.policy.normalize import MissingStatisticsError
from vla_rl.policy.weights import CheckpointError
from vla_rl.value.checkpoint import (
    CriticMismatchError,
    load_critic,
    read_card,
    require_fit,
    save_critic,
    write_report,
)
from vla_rl.value.config import CHUNK_ENCODERS
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.heads import HEADS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_critic(tmp_path / "critic", small_critic(), small_value(), CARD)
    return tmp_path / "critic"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("chunk_encoder", CHUNK_ENCODERS)
def test_a_critic_comes_back_bit_for_bit(tmp_path: Path, head: str, chunk_encoder: str) -> None:
    critic, value = small_critic(head=head, chunk_encoder=chunk_encoder), small_value(ensemble=2)
    save_critic(tmp_path, critic, value, CARD)
    found = load_critic(tmp_path)
    features, state, chunks = seen(2)
    for ours, theirs in ((critic, found.critic), (value, found.value)):
        assert theirs is not None
        assert theirs.config == ours.config
        assert not theirs.training
        mine = ours.state_dict()
        assert mine.keys() == theirs.state_dict().keys()
        assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.state_dict().items())
    before, after = (c.value(c.embed(features, state), chunks) for c in (critic, found.critic))
    assert torch.equal(before, after)
    assert torch.equal(found.critic.distance(features), critic.distance(features))


def test_the_card_says_what_it_was_made_with(folder: Path) -> None:
    card = load_critic(folder).card
    assert {name: card[name] for name in CARD} == CARD
    assert card["report"] is None
    assert card["config"] == small_config().to_dict()
    assert read_card(folder) == card


def test_a_critic_without_a_state_value_has_none(tmp_path: Path) -> None:
    save_critic(tmp_path, small_critic(), None, CARD)
    assert load_critic(tmp_path).value is None


def test_a_report_lies_beside_the_critic_and_changes_no_file(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_report(folder, {"verdict": "fail", "reason": "rank correlation 0.1"})
    report = load_critic(folder).card["report"]
    assert (report["verdict"], report["reason"]) == ("fail", "rank correlation 0.1")
    assert read_card(folder)["report"] == report
    assert {name: (folder / name).read_bytes() for name in before} == before
    with pytest.raises(ValueError, match="a report's verdict is pass or fail, not None"):
        write_report(folder, {"spearman": 0.4})


def test_a_report_on_other_weights_says_nothing(folder: Path) -> None:
    write_report(folder, {"verdict": "pass"})
    save_critic(folder, small_critic(seed=1), None, CARD)
    assert load_critic(folder).card["report"] is None


def test_a_damaged_report_is_no_clean_bill(folder: Path) -> None:
    (folder / "report.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"report\.json is not a critic report"):
        load_critic(folder)


def policy_folder(path: Path, weight: float = 0.0) -> Path:
    """What a policy folder looks like from outside, with what training leaves beside it."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"type": "vla_rl"}))
    (path / "training_state.safetensors").write_bytes(b"large")
    save_file({"weight": torch.full((2,), weight)}, path / "model.safetensors")
    return path


def test_an_encoder_of_its_own_travels_with_it(tmp_path: Path) -> None:
    source = policy_folder(tmp_path / "policy")
    save_critic(tmp_path / "critic", small_critic(encoder="own"), None, CARD, encoder=source)
    found = load_critic(tmp_path / "critic")
    assert found.encoder == tmp_path / "critic" / "encoder"
    assert (found.encoder / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert not (found.encoder / "training_state.safetensors").exists()
    save_critic(tmp_path / "critic", found.critic, None, CARD, encoder=found.encoder)
    assert load_critic(tmp_path / "critic").encoder is not None


def test_another_encoder_than_its_own_is_refused(tmp_path: Path) -> None:
    source, critic = policy_folder(tmp_path / "policy"), tmp_path / "critic"
    save_critic(critic, small_critic(encoder="own"), None, CARD, encoder=source)
    save_file({"weight": torch.ones(2)}, critic / "encoder" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder is missing or not the encoder that critic\.json was written"):
        load_critic(critic)


@pytest.mark.parametrize("encoder", ["policy", "own"])
def test_encoder_and_config_may_not_contradict_each_other(tmp_path: Path, encoder: str) -> None:
    given = policy_folder(tmp_path / "policy") if encoder == "policy" else None
    with pytest.raises(ValueError, match=f"a critic that reads features of '{encoder}' and encoder folder"):
        save_critic(tmp_path / "critic", small_critic(encoder=encoder), None, CARD, encoder=given)


@pytest.mark.parametrize("fact", CARD)
def test_a_card_without_a_fact_is_refused(tmp_path: Path, fact: str) -> None:
    with pytest.raises(ValueError, match=f"missing: {fact}$"):
        save_critic(tmp_path, small_critic(), None, {k: v for k, v in CARD.items() if k != fact})


def test_a_critic_without_statistics_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(MissingStatisticsError):
        save_critic(tmp_path / "critic", ChunkCritic(small_config()), None, CARD)
    assert not (tmp_path / "critic").exists()


# -- damage ------------------------------------------------------------------------------------------------------


def edited(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "critic.json").read_text())
    (folder / "critic.json").write_text(json.dumps({**record, **changes}))


def test_a_folder_that_is_no_critic_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a critic folder: it has no critic\.json"):
        load_critic(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "7"])
def test_a_damaged_record_is_one_line(folder: Path, text: str) -> None:
    (folder / "critic.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not the record of a critic") as error:
        load_critic(folder)
    assert "\n" not in str(error.value)


def test_a_later_format_is_refused(folder: Path) -> None:
    edited(folder, format=2)
    with pytest.raises(CheckpointError, match="has format 2, this version reads 1"):
        load_critic(folder)


def test_a_config_of_another_version_is_refused(folder: Path) -> None:
    edited(folder, config={**small_config().to_dict(), "attention": "flash"})
    with pytest.raises(CheckpointError, match=r"describes no critic of this version: .*attention"):
        load_critic(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "critic.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated or no safetensors file"):
        load_critic(folder)


def test_weights_of_another_critic_are_refused(folder: Path, tmp_path: Path) -> None:
    """A save that was killed between its files leaves new weights beside an old record."""
    save_critic(tmp_path / "other", small_critic(seed=1), small_value(), CARD)
    (tmp_path / "other" / "critic.safetensors").replace(folder / "critic.safetensors")
    with pytest.raises(CheckpointError, match=r"is not the file that critic\.json was written with"):
        load_critic(folder)


def test_weights_of_other_shapes_are_refused_by_name(folder: Path) -> None:
    edited(folder, config=small_config(ensemble=2).to_dict())
    with pytest.raises(CheckpointError, match=r"made for other shapes: critic\..*\(2, .* here, \(3, .* there"):
        load_critic(folder)


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    state = load_file(folder / "critic.safetensors")
    state["critic.out.bias"][0, 0, 0] = torch.nan
    save_file(state, folder / "critic.safetensors")
    with pytest.raises(CheckpointError, match=r"not finite: critic\.out\.bias"):
        load_critic(folder)


# -- misfits -----------------------------------------------------------------------------------------------------

FITS = {
    "policy_fingerprint": "a" * 64,
    "layer": "pooled",
    "feature_dim": 5,
    "state_dim": 3,
    "action_dim": 3,
    "names": ("x.pos", "y.pos", "gripper.pos"),
    "horizon": 6,
    "window": 4,
}
MISFITS = {
    "policy_fingerprint": ("b" * 64, "policy aaaaaaaaaaaa in the critic, bbbbbbbbbbbb in the policy"),
    "layer": ("tokens", "feature layer pooled in the critic, tokens in the policy"),
    "feature_dim": (128, "feature size 5 in the critic, 128 in the policy"),
    "state_dim": (6, "state size 3 in the critic, 6 in the policy"),
    "action_dim": (7, "action size 3 in the critic, 7 in the policy"),
    "names": (["x.pos", "gripper.pos", "y.pos"], "['x.pos', 'y.pos', 'gripper.pos'] in the critic, ['x.pos', 'gripper"),
    "horizon": (3, "chunks of 4 actions or more in the critic, 3 in the policy"),
    "window": (8, "actions executed of a chunk 4 in the critic, 8 in the policy"),
}


def test_what_fits_passes_and_what_is_unknown_is_not_compared(folder: Path) -> None:
    card = read_card(folder)
    require_fit(card, **FITS)
    require_fit(card)
    require_fit({**card, "names": []}, names=["any"])


@pytest.mark.parametrize("side", MISFITS)
def test_every_misfit_is_refused_with_both_sides(folder: Path, side: str) -> None:
    other, message = MISFITS[side]
    with pytest.raises(CriticMismatchError) as error:
        require_fit(read_card(folder), **{**FITS, side: other})
    assert str(error.value).startswith("the critic does not fit the policy: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_misfits_are_told_at_once(folder: Path) -> None:
    with pytest.raises(CriticMismatchError) as error:
        require_fit(read_card(folder), where="policies/lift", **{side: other for side, (other, _) in MISFITS.items()})
    assert str(error.value).count(" in the critic, ") == len(MISFITS)
    assert "in policies/lift" in str(error.value)


def test_a_critic_with_its_own_encoder_fits_policies_that_it_never_saw(tmp_path: Path) -> None:
    source = policy_folder(tmp_path / "policy")
    save_critic(tmp_path / "critic", small_critic(encoder="own"), None, CARD, encoder=source)
    card = read_card(tmp_path / "critic")
    require_fit(card, **{**FITS, "policy_fingerprint": "b" * 64, "layer": "tokens", "feature_dim": 128})
    with pytest.raises(CriticMismatchError, match="action size"):
        require_fit(card, action_dim=7)
