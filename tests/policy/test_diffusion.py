"""Diffusion against oracles: a perfect network, and a Gaussian whose best denoiser is known."""

import pytest
import torch
from torch import Tensor

from vla_rl.policy.diffusion import PREDICTIONS, SCHEDULERS, levels, make_scheduler, noised, sample, target, to_clean

T = 100


def unclipped(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_clean_chunk_follows_from_every_kind_of_prediction(prediction: str) -> None:
    torch.manual_seed(0)
    abar = make_scheduler("ddim", T, prediction).alphas_cumprod
    clean, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    alpha, sigma = levels(abar, torch.randint(0, 90, (2, 3)))
    output = target(clean, noise, alpha, sigma, prediction)
    torch.testing.assert_close(
        to_clean(output, noised(clean, noise, alpha, sigma), alpha, sigma, prediction), clean, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_returns_the_chunk_that_a_perfect_network_knows(name: str, prediction: str) -> None:
    torch.manual_seed(0)
    scheduler = make_scheduler(name, T, prediction)
    abar, truth = scheduler.alphas_cumprod.float(), torch.randn(2, 1, 4, 3)

    def perfect(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = levels(abar, t)
        return target(truth, (x - alpha * truth) / sigma, alpha, sigma, prediction)

    noise = torch.randn(2, 5, 4, 3)
    chunks = sample(perfect, scheduler, abar, noise, prediction=prediction, steps=10, clip=lambda x: x.clamp(-5, 5))
    torch.testing.assert_close(chunks, truth.expand_as(chunks), atol=0.05, rtol=0)


def gaussian(abar: Tensor, correlation: float) -> tuple[Tensor, object]:
    """Covariance of a chunk of two actions, and the posterior mean E[x0 | x_t] of x0 ~ N(0, C)."""
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = levels(abar, t.flatten()[0])
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2))
        return gain.squeeze() @ x

    return covariance, denoise


def test_a_prefix_is_kept_and_the_rest_continues_it() -> None:
    torch.manual_seed(0)
    scheduler = make_scheduler("ddpm", T, "sample")
    abar = scheduler.alphas_cumprod.float()
    _, denoise = gaussian(abar, 0.95)
    prefix = torch.full((1, 1), 1.5)
    chunks = sample(
        denoise, scheduler, abar, torch.randn(1, 400, 2, 1), prediction="sample", steps=T, clip=unclipped, prefix=prefix
    )
    assert (chunks[:, :, 0] == 1.5).all()
    assert chunks[:, :, 1].mean() > 0.6, "a strongly correlated next action follows the prefix"


def test_sampling_from_a_chunk_stays_near_it() -> None:
    torch.manual_seed(0)
    scheduler = make_scheduler("ddim", T, "sample")
    abar = scheduler.alphas_cumprod.float()
    _, denoise = gaussian(abar, 0.0)
    init = torch.full((1, 1, 2, 1), 1.0)
    options = {"prediction": "sample", "steps": 20, "clip": unclipped, "init": init}
    noise = torch.randn(1, 500, 2, 1)
    near = sample(denoise, scheduler, abar, noise, init_strength=0.1, **options)
    far = sample(denoise, scheduler, abar, noise, init_strength=1.0, **options)
    assert (near - init).abs().mean() < 0.3 < (far - init).abs().mean()


def test_guidance_samples_the_posterior_of_a_gaussian() -> None:
    torch.manual_seed(0)
    scheduler = make_scheduler("ddim", T, "sample")
    abar = scheduler.alphas_cumprod.float()
    _, denoise = gaussian(abar, 0.0)
    observed, variance = 1.0, 0.5
    level = iter(scheduler.timesteps[:0])

    def guide(x: Tensor) -> Tensor:
        """Gradient of log p(observed | x_t): x0 | x_t is N(alpha x_t, sigma^2), observed = x0 + N(0, variance)."""
        alpha, sigma = levels(abar, torch.tensor(next(level)))
        return alpha * (observed - alpha * x) / (sigma**2 + variance)

    scheduler.set_timesteps(50)
    level = iter([int(t) for t in scheduler.timesteps])
    noise = torch.randn(1, 4000, 2, 1)
    chunks = sample(denoise, scheduler, abar, noise, prediction="sample", steps=50, clip=unclipped, guide=guide)
    assert abs(chunks.mean().item() - observed / (1 + variance)) < 0.05
    assert abs(chunks.var().item() - variance / (1 + variance)) < 0.1
