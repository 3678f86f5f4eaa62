"""SteeredPolicy: a policy and its critic as one LeRobot policy, whose chunk is the chosen one."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.policy.folder import choose_device, fingerprint, read_config
from vla_rl.policy.inputs import Columns
from vla_rl.policy.perturb import PerturbConfig, perturbed
from vla_rl.policy.served import load_served
from vla_rl.steer.configuration_vla_rl_steered import SteeredConfig
from vla_rl.steer.critic import LoadedCritic
from vla_rl.steer.guided import Guided
from vla_rl.steer.processor_vla_rl_steered import make_vla_rl_steered_pre_post_processors
from vla_rl.steer.selectors import BLIND
from vla_rl.steer.steered import Answer, Steered

POLICY, CRITIC = "policy", "critic"
Batch = Mapping[str, Any]


class SteeredPolicy(PreTrainedPolicy):
    """A policy of any type, whose K candidates a critic ranks; LeRobot's tools see a policy like any other.

    Args:
        config: how is steered.
        folder: holds `policy/` and, for selectors that need one, `critic/`.

    Raises:
        ValueError: there is no such folder, or its parts do not fit.
    """

    config_class = SteeredConfig
    name = "vla_rl_steered"

    def __init__(self, config: SteeredConfig, folder: Path | None = None, **_: Any) -> None:
        super().__init__(config)
        if folder is None:
            raise ValueError(
                "a steered policy is made of a policy and a critic: vla-rl pair POLICY --critic DIR --out OUT"
            )
        self.config: SteeredConfig = config
        self._folder, device = folder, choose_device(str(config.device))
        served, critic = load_served(folder / POLICY, device), None
        if config.selector not in BLIND or config.guidance:
            critic = LoadedCritic.load(folder / CRITIC, device, trusted=config.trust_critic)
        if config.guidance and critic is not None:
            served = Guided(served, critic, config.guidance)
        else:
            served = perturbed(served, PerturbConfig(config.draws, config.spread))
        mark, executed = fingerprint(folder / POLICY), config.n_action_steps
        self._steered = Steered(served, critic, config.chooser, config.candidates, mark, executed)
        self._decisions = 0
        self.reset()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_name_or_path: str | Path, *, config: SteeredConfig | None = None, **_: Any
    ) -> SteeredPolicy:
        """Load a folder of `pair`.

        Raises:
            ValueError: it is none, or policy and critic do not fit.
        """
        folder = Path(pretrained_name_or_path)
        kind = read_config(folder)["type"]
        if kind != cls.name:
            raise ValueError(f"{folder} holds a policy of type '{kind}', not '{cls.name}'")
        if config is None:
            loaded = PreTrainedConfig.from_pretrained(folder)
            assert isinstance(loaded, SteeredConfig)
            config = loaded
        return cls(config, folder).eval()

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the folder: config, processors, and copies of policy and critic."""
        _write(self.config, self._folder / POLICY, self._folder / CRITIC, save_directory)

    # -- LeRobot's interface --------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget queued actions and past frames: a new episode begins."""
        self._actions: deque[Tensor] = deque()
        self._seen: list[deque[Columns]] = []

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Nothing is trained."""
        return []

    def forward(self, batch: Batch) -> NoReturn:
        """A steered policy is not trained as a whole.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("train the policy and the critic, and pair them again: vla-rl train, vla-rl pair")

    def predict_action_chunk(self, batch: Batch, **_: Any) -> Tensor:
        """The chosen chunk of each observation, (B, H, A), in the data set's units."""
        return self._chunks(self.answers(batch))

    def select_action(self, batch: Batch, **_: Any) -> Tensor:
        """The next action (B, A), from a chunk of which `n_action_steps` are executed before the next is asked for."""
        rows = self._columns(batch)
        self._seen = self._seen or [deque(maxlen=self.config.n_obs_steps) for _ in rows]
        for seen, row in zip(self._seen, rows, strict=True):
            seen.append(row)
        if not self._actions:
            chunk = self._chunks(self._answered([list(seen) for seen in self._seen], batch))
            self._actions.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._actions.popleft()

    def answers(self, batch: Batch) -> list[Answer]:
        """What the pair answers to each of B observations, with all candidates and their values.

        They are looked at by themselves: only `select_action` knows what came before.
        """
        return self._answered([[row] for row in self._columns(batch)], batch)

    def _answered(self, histories: Sequence[list[Columns]], batch: Batch) -> list[Answer]:
        tasks = batch.get("task") or [""] * len(histories)
        return [self._answer(history, task) for history, task in zip(histories, tasks, strict=True)]

    def _chunks(self, answers: Sequence[Answer]) -> Tensor:
        return torch.from_numpy(np.stack([answer.chunk for answer in answers])).to(str(self.config.device))

    def _answer(self, history: list[Columns], task: str) -> Answer:
        self._decisions += 1
        seed = int(np.random.SeedSequence([self.config.seed, self._decisions]).generate_state(1)[0])
        return self._steered.answer(history, task, seed)

    def _columns(self, batch: Batch) -> list[Columns]:
        """The newest frame of each observation as it came from the sensors."""
        wanted = {key: _numbers(batch[key]) for key in self.config.input_features or {}}
        count = len(next(iter(wanted.values())))
        return [{key: value[i] for key, value in wanted.items()} for i in range(count)]


def pair(policy: str | Path, critic: str | Path | None, out: str | Path, **options: Any) -> SteeredPolicy:
    """Put a policy and a critic into one folder, which LeRobot's tools load as a policy.

    Args:
        policy: folder, ours or one of LeRobot's.
        critic: folder; None for selectors that need none.
        out: where to; there must be nothing yet.
        options: of `SteeredConfig`.

    Raises:
        ValueError: they do not fit, or there is something in `out`.
    """
    out, base = Path(out), PreTrainedConfig.from_pretrained(policy)
    if out.exists():
        raise ValueError(f"{out} exists already")
    shared = {"input_features": base.input_features, "output_features": base.output_features}
    shared |= {"n_obs_steps": base.n_obs_steps, "device": base.device}
    window = {} if critic is None else {"n_action_steps": LoadedCritic.load(critic, trusted=True).window}
    config = SteeredConfig(**{**shared, "n_action_steps": int(getattr(base, "n_action_steps", 8)), **window, **options})
    try:
        _write(config, Path(policy), None if critic is None else Path(critic), out)
        return SteeredPolicy.from_pretrained(out)
    except ValueError:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _write(config: SteeredConfig, policy: Path, critic: Path | None, out: Path) -> None:
    """A steered policy's folder."""
    out.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("training*", "*.tmp", ".*")
    shutil.copytree(policy, out / POLICY, ignore=ignored, dirs_exist_ok=True)
    if critic is not None and critic.is_dir():
        shutil.copytree(critic, out / CRITIC, ignore=ignored, dirs_exist_ok=True)
    config.save_pretrained(out)
    for processor in make_vla_rl_steered_pre_post_processors(config):
        processor.save_pretrained(out)


def _numbers(values: Tensor) -> NDArray[Any]:
    """A column (B, ...): pictures (B, 3, H, W) in [0, 1] become (B, H, W, 3) uint8 again, vectors stay."""
    if values.ndim != 4:
        return np.asarray(values.detach().cpu().numpy())
    pixels = values if values.dtype == torch.uint8 else (values * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())
