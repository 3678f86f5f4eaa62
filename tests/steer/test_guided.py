"""Guidance during denoising: on a Gaussian, whose tilted distribution is known, and on a policy with a critic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from steer_critics import save

from vla_rl.policy.diffusion import levels, make_scheduler, sample
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.served import OwnPolicy
from vla_rl.steer.critic import LoadedCritic
from vla_rl.steer.guided import Guided, GuidedConfig, Particles, gradient, systematic

T, SLOPE = 100, 0.8


def linear(chunks: torch.Tensor) -> torch.Tensor:
    """A log-density that tilts N(0, 1) to N(SLOPE, 1), in the first action alone."""
    return SLOPE * chunks[..., 0, 0]


def drawn(scheduler: str, **options) -> torch.Tensor:
    """Many chunks of two actions from N(0, 1), under guidance."""
    torch.manual_seed(0)
    chosen = make_scheduler(scheduler, T, "sample")
    abar = chosen.alphas_cumprod.float()

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, _ = levels(abar, t.flatten()[0])
        return alpha * x

    settings = {"prediction": "sample", "steps": 50, "clip": lambda x: x, "generator": torch.Generator().manual_seed(0)}
    return sample(denoise, chosen, abar, torch.randn(1, 6000, 2, 1), **settings, **options)[0, ..., 0]


def is_tilted(chunks: torch.Tensor, variance: float) -> None:
    """Whether N(0, variance), what the sampler makes of N(0, 1) in so many steps, became the distribution wanted."""
    assert abs(chunks[:, 0].mean().item() - SLOPE * variance) < 0.06
    assert abs(chunks[:, 1].mean().item()) < 0.06
    np.testing.assert_allclose(chunks.var(0).numpy(), variance, atol=0.1)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_particles_follow_the_distribution_times_the_exponential_of_the_reward(scheduler):
    particles = Particles(linear, GuidedConfig(least_effective=1.0), torch.Generator().manual_seed(1))
    plain = drawn(scheduler, resample=lambda chunks, left: None)
    is_tilted(drawn(scheduler, resample=particles), plain.var().item())


@pytest.mark.parametrize("every", [1, 5])
def test_resampling_seldom_changes_no_mean(every):
    particles = Particles(linear, GuidedConfig(every=every), torch.Generator().manual_seed(1))
    plain = drawn("ddim", resample=lambda chunks, left: None)
    is_tilted(drawn("ddim", resample=particles), plain.var().item())


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm-solver++"])
def test_the_gradient_moves_a_gaussian_to_the_same_place(scheduler):
    is_tilted(drawn(scheduler, tilt=gradient(linear)), 1.0)


def test_a_reward_that_is_the_same_for_all_changes_nothing():
    particles = Particles(
        lambda chunks: torch.full(chunks.shape[:2], 3.0), GuidedConfig(), torch.Generator().manual_seed(1)
    )
    chunks = drawn("ddpm", resample=particles)
    plain = drawn("ddpm")
    np.testing.assert_array_equal(np.sort(chunks[:, 0].numpy()), np.sort(plain[:, 0].numpy()))


def test_a_sampler_that_looks_back_cannot_be_resampled():
    with pytest.raises(ValueError, match=r"needs the scheduler ddim or ddpm; dpm-solver\+\+"):
        drawn("dpm-solver++", resample=Particles(linear, GuidedConfig(), torch.Generator()))


def test_systematic_resampling_takes_each_as_often_as_its_weight_says():
    weights = torch.tensor([[0.5, 0.25, 0.125, 0.125, 0, 0, 0, 0]])
    rows = systematic(weights, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(torch.bincount(rows[0], minlength=8), [4, 2, 1, 1, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """A tiny policy, an observation, and a critic that reads its features."""
    from vla_rl.bench.policy import default_policy

    torch.manual_seed(0)
    policy, batch = default_policy()
    for parameter in policy.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    assert isinstance(policy, VLAPolicy)
    folder = save(tmp_path_factory.mktemp("critic"), features=128, window=8)
    images = {key: value[0].permute(1, 2, 0).numpy() for key, value in batch.items() if "images" in key}
    return OwnPolicy(policy), images | {"observation.state": np.zeros(6, np.float32)}, LoadedCritic.load(folder)


def mean_value(steered, method: str, temperature: float) -> float:
    served, seen, critic = steered
    guided = Guided(served, critic, GuidedConfig(method=method, temperature=temperature)) if method else served
    context = guided.encode([seen], "lift the red cube")
    chunks = guided.sample(context, 32, seed=0)
    assert chunks.shape == (32, 16, 6)
    return float(critic.score(guided.features(context)[None], np.zeros((1, 6)), chunks[None]).mean())


@pytest.mark.parametrize("method", ["fk", "gradient"])
def test_a_critics_influence_raises_what_it_says_of_the_candidates(steered, method):
    hardly = mean_value(steered, method, 1e6)
    assert mean_value(steered, method, 0.001) > hardly + 1e-3
    assert abs(hardly - mean_value(steered, "", 1.0)) < 0.01


def test_what_cannot_be_guided_is_refused_in_one_line(steered, tmp_path):
    served, _, critic = steered
    with pytest.raises(ValueError, match="unknown guidance 'magic'; there are: fk, gradient"):
        GuidedConfig(method="magic")
    with pytest.raises(ValueError, match="temperature must be positive"):
        GuidedConfig(temperature=0.0)
    with pytest.raises(ValueError, match="not one of our policies"):
        Guided(Guided(served, critic, GuidedConfig()), critic, GuidedConfig())
    with pytest.raises(ValueError, match="chunks of 20 actions or more in the critic, 16 in the policy"):
        Guided(served, LoadedCritic.load(save(tmp_path, features=128, window=20)), GuidedConfig())


def test_a_particle_of_which_nothing_finite_is_said_is_lost_and_takes_no_other_with_it():
    said = iter([[np.nan, 1.0, 2.0, 0.0], [np.nan] * 4])
    config = GuidedConfig(least_effective=1.0)
    for wanted in ({1, 2, 3}, {0, 1, 2, 3}):
        reward = torch.tensor([next(said)])
        particles = Particles(lambda clean, reward=reward: reward, config, torch.Generator().manual_seed(0))
        kept = particles(torch.zeros(1, 4, 2, 2), 0)
        assert set(kept.flatten().tolist()) <= wanted
        assert 2 in kept
