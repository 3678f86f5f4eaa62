"""ChunkCritic: E members in one pass are E critics, one context serves all candidates, and only the window counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from critic_samples import HORIZON, WINDOW, A, D, S, seen, small_critic, small_stats
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vla_rl.policy.normalize import MissingStatisticsError
from vla_rl.value.config import CHUNK_ENCODERS, CriticConfig
from vla_rl.value.critic import ChunkCritic, CriticContext
from vla_rl.value.heads import HEADS
from vla_rl.value.inputs import critic_stats, plain_stats

PARTS = ("observation", "context", "encoder", "trunk", "out")
encoders = pytest.mark.parametrize("chunk_encoder", CHUNK_ENCODERS)


def member(critic: ChunkCritic, index: int) -> ChunkCritic:
    """One of an ensemble as an ensemble of one."""
    alone = ChunkCritic(replace(critic.config, ensemble=1))
    learned = {name for name, _ in critic.named_parameters()}
    state = {k: v[index : index + 1] if k in learned else v for k, v in critic.state_dict().items()}
    alone.load_state_dict(state)
    return alone


@encoders
@pytest.mark.parametrize("head", HEADS)
def test_the_batched_ensemble_is_a_loop_over_its_members(chunk_encoder: str, head: str) -> None:
    critic = small_critic(chunk_encoder=chunk_encoder, head=head)
    features, state, chunks = seen(2)
    together = critic.value(critic.embed(features, state), chunks)
    assert together.shape == (3, 2, 8)
    for index in range(3):
        alone = member(critic, index)
        torch.testing.assert_close(together[index], alone.value(alone.embed(features, state), chunks)[0])
    assert (together.std(0) > 0).all()


@pytest.mark.parametrize("head", HEADS)
def test_mixed_precision_rounds_neither_what_actions_are_relative_to_nor_values(head: str) -> None:
    """bfloat16 knows a joint at 93.4 degrees as 93.5: more than its chunk's first action moves it."""
    critic = small_critic(head=head, low=-100.0, high=0.0)
    features, state, chunks = seen(2)
    exact = critic.embed(features, state)
    with torch.autocast("cpu", torch.bfloat16):
        context = critic.embed(features, state)
        out = critic.logits(context, chunks)
        values = critic.head.mean(out)
    assert torch.equal(context.base, exact.base)
    torch.testing.assert_close(values, critic.head.mean(out.float()))
    assert float((values - critic.value(exact, chunks)).abs().max()) < 0.5, "of a range of 100"


def test_the_mlp_critic_is_the_papers_plain_network() -> None:
    """Linear, LayerNorm, GELU over observation and flattened chunk side by side, `depth` times, and a linear output."""
    critic = small_critic(ensemble=1, relative=(False,) * 3, depth=3)
    features, state, chunks = seen(1)
    parts, own = critic.observation.parts, dict(critic.named_parameters())
    row = torch.cat([parts["features"].normalize(features), parts["state"].normalize(state)], -1).expand(8, -1)
    x = torch.cat([row, critic.chunk.normalize(chunks[0, :, :WINDOW]).flatten(1)], -1)
    first = torch.cat([own["context.weight"][0], own["encoder.linear.weight"][0]])
    layers = [(first, own["context.bias"][0] + own["encoder.linear.bias"][0], "norm")]
    layers += [(own[f"trunk.{i}.0.weight"][0], own[f"trunk.{i}.0.bias"][0], f"trunk.{i}.1") for i in range(2)]
    for weight, bias, norm in layers:
        x = F.gelu(F.layer_norm(x @ weight + bias, (16,), own[f"{norm}.scale"][0, 0], own[f"{norm}.shift"][0, 0]))
    logits = critic.logits(critic.embed(features, state), chunks)
    torch.testing.assert_close(logits[0, 0], x @ own["out.weight"][0] + own["out.bias"][0, 0], rtol=1e-4, atol=1e-5)


@encoders
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(8)))
def test_candidates_may_come_in_any_order(chunk_encoder: str, order: list[int]) -> None:
    critic = small_critic(chunk_encoder=chunk_encoder)
    features, state, chunks = seen(2)
    context = critic.embed(features, state)
    torch.testing.assert_close(critic.value(context, chunks[:, order]), critic.value(context, chunks)[..., order])


@encoders
def test_a_candidates_value_does_not_depend_on_its_company(chunk_encoder: str) -> None:
    critic = small_critic(chunk_encoder=chunk_encoder)
    features, state, chunks = seen(2)
    context = critic.embed(features, state)
    together = critic.value(context, chunks)
    parts = [critic.value(context, part) for part in chunks.split(3, dim=1)]
    torch.testing.assert_close(torch.cat(parts, -1), together)
    chunks[:, 3] = torch.nan
    spoilt = critic.value(context, chunks)
    assert spoilt[..., 3].isnan().all()
    keep = [k for k in range(8) if k != 3]
    torch.testing.assert_close(spoilt[..., keep], together[..., keep])


@encoders
def test_one_context_and_one_pass_serve_32_candidates(chunk_encoder: str) -> None:
    critic, calls, rows = small_critic(chunk_encoder=chunk_encoder), [], []
    for name in PARTS:
        part = critic.get_submodule(name)
        part.register_forward_hook(lambda module, given, made, name=name: calls.append(name))
    critic.encoder.register_forward_hook(lambda module, given, made: rows.append(len(given[0])))
    critic.context.register_forward_hook(lambda module, given, made: rows.append(len(given[0])))
    features, state, chunks = seen(1, k=32)
    critic.value(critic.embed(features, state), chunks)
    assert sorted(calls) == sorted(PARTS)
    assert rows == [1, 32]


@encoders
def test_actions_beyond_the_window_have_no_influence(chunk_encoder: str) -> None:
    critic = small_critic(chunk_encoder=chunk_encoder)
    features, state, chunks = seen(2)
    context, chunks = critic.embed(features, state), chunks.requires_grad_()
    values = critic.value(context, chunks)
    values.sum().backward()
    assert chunks.grad is not None
    assert not chunks.grad[..., WINDOW:, :].any()
    assert (chunks.grad[..., :WINDOW, :].abs().sum((-1, -2)) > 0).all()
    other = torch.cat([chunks[..., :WINDOW, :], torch.full_like(chunks[..., WINDOW:, :], torch.nan)], dim=-2)
    torch.testing.assert_close(critic.value(context, other), values, rtol=0, atol=0)
    torch.testing.assert_close(critic.value(context, chunks[..., :WINDOW, :]), values, rtol=0, atol=0)


def test_relative_actions_are_read_from_where_the_arm_is() -> None:
    """Arm and chunk shifted alike are the same motion; the gripper is read as it is."""
    critic = small_critic()
    features, state, chunks = seen(2)
    context = critic.embed(features, state)
    arm, gripper = torch.tensor([5.0, -3.0, 0.0]), torch.tensor([0.0, 0.0, 9.0])
    moved = CriticContext(context.hidden, context.base + arm)
    torch.testing.assert_close(critic.value(moved, chunks + arm), critic.value(context, chunks), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(critic.value(context, chunks + gripper), critic.value(context, chunks))
    assert torch.equal(context.base[..., :2].squeeze(), state[:, :2])
    assert not context.base[..., 2].any()


@pytest.mark.parametrize(("feature_dim", "state_dim"), [(D, 0), (0, S)])
def test_features_alone_or_state_alone_will_do(feature_dim: int, state_dim: int) -> None:
    critic = ChunkCritic(CriticConfig(feature_dim, state_dim, A, WINDOW, -1.0, 1.0, width=16))
    critic.set_stats(plain_stats(features=(D,), state=(S,), chunk=(WINDOW, A)))
    features, state, chunks = seen(2)
    context = critic.embed(features if feature_dim else None, state if state_dim else None)
    assert critic.value(context, chunks).shape == (2, 2, 8)


def test_a_critic_learns_which_chunk_is_better() -> None:
    torch.manual_seed(0)
    critic = ChunkCritic(CriticConfig(D, S, A, WINDOW, -1.5, 1.5, bins=21, width=32))
    critic.set_stats(plain_stats(features=(D,), state=(S,), chunk=(WINDOW, A)))
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    for _ in range(150):
        features, state, chunks = (torch.randn(shape) for shape in ((64, D), (64, S), (64, 1, HORIZON, A)))
        returns = torch.tanh(chunks[:, 0, :WINDOW].mean((-1, -2)) * 3 * features[:, 0].sign())
        loss = critic.head.loss(
            critic.logits(critic.embed(features, state), chunks), returns[None, :, None].expand(2, -1, -1)
        )
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    with torch.no_grad():
        values = critic.value(critic.embed(features, state), chunks).mean(0)[:, 0]
    assert float(torch.corrcoef(torch.stack([values, returns]))[0, 1]) > 0.9


def test_what_the_data_never_shows_stays_bounded() -> None:
    critic = small_critic()
    features, state, chunks = seen(1)
    far = critic.value(critic.embed(1e6 * features, state), 1e6 * chunks)
    assert ((far >= critic.config.low) & (far <= critic.config.high)).all()


def test_distance_is_one_at_the_edge_of_the_usual() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(D, D, generator=generator)
    rows = 4 + 3 * torch.randn(5000, D, generator=generator) @ mixing
    critic = ChunkCritic(CriticConfig(D, 0, A, WINDOW, -1.0, 1.0, width=16))
    critic.set_stats(critic_stats(rows.numpy(), None, torch.randn(50, WINDOW, A, generator=generator).numpy()))
    assert float((critic.distance(rows) > 1).float().mean()) == pytest.approx(0.01, abs=0.003)
    assert (critic.distance(rows + 100) > 3).all()
    critic.set_stats(plain_stats(features=(D,), chunk=(WINDOW, A)))
    assert critic.distance(rows).isnan().all()


def test_features_that_no_longer_go_together_are_unusual_though_each_is_usual() -> None:
    """What a spread for each number alone can not see: it found 12% of the unseen looks, the joint one 83%."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 1, generator=generator) + 0.1 * torch.randn(4000, 2, generator=generator)
    critic = ChunkCritic(CriticConfig(2, 0, A, WINDOW, -1.0, 1.0, width=16))
    critic.set_stats(critic_stats(rows.numpy(), None, torch.randn(50, WINDOW, A, generator=generator).numpy()))
    together, apart = critic.distance(torch.tensor([[1.5, 1.5], [1.5, -1.5]]))
    assert together < 1 < 2 < apart


def test_padding_does_not_enter_the_statistics() -> None:
    chunks, valid = torch.ones(3, WINDOW, A).numpy(), torch.ones(3, WINDOW, dtype=torch.bool).numpy()
    chunks[0, -1], valid[0, -1] = 1000, False
    assert critic_stats(None, seen(3)[1].numpy(), chunks, valid)["chunk"]["max"].max() == 1


def test_without_statistics_nothing_is_valued() -> None:
    critic = ChunkCritic(small_critic().config)
    with pytest.raises(MissingStatisticsError, match="no statistics"):
        critic.embed(*seen(1)[:2])
    stats = small_stats(np.random.default_rng(0))
    with pytest.raises(
        MissingStatisticsError, match="no statistics for the critic's 'chunk'; there are: features, state"
    ):
        critic.set_stats({k: v for k, v in stats.items() if k != "chunk"})


def test_what_does_not_fit_is_refused_with_both_sides() -> None:
    critic = small_critic()
    features, state, chunks = seen(2)
    context = critic.embed(features, state)
    with pytest.raises(ValueError, match=r"reads features of shape \(B, 5\), and was given \(2, 4\)"):
        critic.embed(features[:, :4], state)
    with pytest.raises(ValueError, match=r"reads state of shape \(B, 3\), and was given nothing"):
        critic.embed(features, None)
    for wrong in (chunks[..., :2], chunks[:, :, : WINDOW - 1], chunks[0], chunks[:1]):
        with pytest.raises(ValueError, match=r"values chunks \(2, K, 4 or more, 3\), and was given"):
            critic.value(context, wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "iqn"}, "unknown value head 'iqn'; there are: mse"),
        ({"chunk_encoder": "lstm"}, "unknown chunk_encoder 'lstm'; there are: mlp, transformer"),
        ({"encoder": "theirs"}, "unknown encoder 'theirs'; there are: policy, own"),
        ({"window": 0}, "is no chunk"),
        ({"relative": (True,)}, "`relative` has 1 entries for 3 actions"),
        ({"state_dim": 1}, "actions relative to a state of 1 numbers"),
        ({"low": 2.0, "high": 2.0}, "a value support needs low < high"),
        ({"ensemble": 0}, "ensemble, width and depth are 1 or more"),
        ({"gamma": 1.5}, "gamma lies in"),
        ({"feature_dim": 0, "state_dim": 0, "relative": ()}, "neither features nor a state"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(small_critic().config, **changes)
