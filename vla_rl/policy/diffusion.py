"""Diffusion over action chunks: pure functions around diffusers' schedulers, in the network's units throughout.

Notation of DDPM (arXiv:2006.11239): clean x0, noise eps, x_t = alpha x0 + sigma eps with alpha = sqrt(abar_t) and
sigma = sqrt(1 - abar_t); v = alpha eps - sigma x0 (arXiv:2202.00512).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

PREDICTIONS = ("epsilon", "sample", "v_prediction")
SCHEDULERS: dict[str, Callable[..., Any]] = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "dpm-solver++": DPMSolverMultistepScheduler,
}

Predict = Callable[[Tensor, Tensor], Tensor]
Guide = Callable[[Tensor], Tensor]
Resample = Callable[[Tensor, int], Tensor | None]


def make_scheduler(name: str, train_timesteps: int, prediction: str) -> Any:
    """A diffusers scheduler with the squared-cosine schedule, fed with clean chunks, whatever the network predicts.

    Sampling starts at the noisiest level ("trailing", arXiv:2305.08891), but for epsilon: there the noisiest level says
    nothing about the clean chunk. Clipping is left to `sample`, which knows the range of every action.
    """
    options: dict[str, Any] = {"clip_sample": False} if name != "dpm-solver++" else {}
    if name == "ddim":
        options["set_alpha_to_one"] = True
    return SCHEDULERS[name](
        num_train_timesteps=train_timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        timestep_spacing="leading" if prediction == "epsilon" else "trailing",
        **options,
    )


def levels(alphas_cumprod: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha and sigma at integer diffusion steps (...,), shaped (..., 1, 1) to multiply chunks."""
    abar = alphas_cumprod[time][..., None, None]
    return abar.sqrt(), (1 - abar).sqrt()


def noised(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x_t of clean chunks."""
    return alpha * clean + sigma * noise


def target(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """What the network learns to predict."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return clean
    return alpha * noise - sigma * clean


def to_clean(output: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor, prediction: str) -> Tensor:
    """x0 from a prediction."""
    if prediction == "epsilon":
        return (noisy - sigma * output) / alpha
    if prediction == "sample":
        return output
    return alpha * noisy - sigma * output


def sample(
    predict: Predict,
    scheduler: Any,
    alphas_cumprod: Tensor,
    noise: Tensor,
    *,
    prediction: str,
    steps: int,
    clip: Callable[[Tensor], Tensor],
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    prefix: Tensor | None = None,
    init: Tensor | None = None,
    init_strength: float = 1.0,
    guide: Guide | None = None,
    tilt: Guide | None = None,
    resample: Resample | None = None,
) -> Tensor:
    """Denoise chunks (B, K, H, A).

    Args:
        predict: (noisy chunks, diffusion step (1, 1)) to the network's prediction.
        scheduler: of `make_scheduler`.
        alphas_cumprod: abar of every training step, (T,), on the chunks' device.
        noise: where to start, (B, K, H, A).
        prediction: what `predict` returns, one of PREDICTIONS.
        steps: denoising steps.
        clip: bounds a clean chunk.
        generator: for schedulers that add noise (ddpm).
        prefix: the first P actions, (P, A) or broadcastable to (B, K, P, A): at every step they are put in at that
            step's noise level, so that the rest continues them (RePaint, arXiv:2201.09865), and returned unchanged.
        init: chunks to noise and denoise again, broadcastable to (B, K, H, A) (SDEdit, arXiv:2108.01073).
        init_strength: share of the schedule that is walked again with `init`, in (0, 1].
        guide: noisy chunks to the gradient of a log-likelihood with regard to them, which is added to the score
            (classifier guidance, arXiv:2105.05233): x0 moves by sigma^2 / alpha times the gradient.
        tilt: clean chunks to the gradient of a log-density by which the distribution is to be multiplied. The clean
            chunk moves by its own uncertainty times the gradient, sigma^2 for data of unit variance: exact for a
            linear log-density and Gaussian data (compare DPS, arXiv:2209.14687, whose Jacobian is left out here).
        resample: (predicted clean chunks, steps left) to which particle goes on in each place, (B, K) int64, or None
            for all as they are (Feynman-Kac steering, arXiv:2501.06848). Copies part again only where the sampler
            draws noise: DDIM is run with eta 1.
    """
    eta = _eta(scheduler, resample is not None)
    scheduler.set_timesteps(steps)
    times = [int(t) for t in scheduler.timesteps]
    x = noise
    if init is not None:
        skipped = steps - max(1, round(init_strength * steps))
        times = times[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        x = noised(init, noise, *levels(alphas_cumprod, torch.tensor(times[0])))
    for left, t in zip(range(len(times) - 1, -1, -1), times, strict=True):
        alpha, sigma = levels(alphas_cumprod, torch.tensor(t))
        if prefix is not None:
            x = _with_prefix(x, noised(prefix, noise[..., : prefix.shape[-2], :], alpha, sigma))
        output = predict(x, torch.full((1, 1), t, device=x.device))
        clean = to_clean(output, x, alpha, sigma, prediction)
        if guide is not None:
            clean = clean + sigma**2 / alpha * guide(x)
        if tilt is not None:
            clean = clean + sigma**2 * tilt(clip(clean))
        clean = clip(clean)
        x = scheduler.step(clean, t, x, generator=generator, **eta).prev_sample
        if resample is not None and (rows := resample(x if not left else clean, left)) is not None:
            x = x.gather(1, rows[..., None, None].expand_as(x))
    return x if prefix is None else _with_prefix(x, prefix)


def _eta(scheduler: Any, stochastic: bool) -> dict[str, float]:
    """Options of a step for a sampler that has to draw noise.

    Raises:
        ValueError: it can not: it looks back at steps of particles that are gone.
    """
    if not stochastic or isinstance(scheduler, DDPMScheduler):
        return {}
    if not isinstance(scheduler, DDIMScheduler):
        raise ValueError("resampling needs the scheduler ddim or ddpm; dpm-solver++ looks back at past steps")
    return {"eta": 1.0}


def _with_prefix(x: Tensor, prefix: Tensor) -> Tensor:
    """Chunks whose first actions are replaced."""
    head = prefix.expand(*x.shape[:-2], *prefix.shape[-2:]).to(x.dtype)
    return torch.cat([head, x[..., prefix.shape[-2] :, :]], dim=-2)
