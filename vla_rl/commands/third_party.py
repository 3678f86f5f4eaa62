"""A policy that is not ours, for the uplift benchmark: LeRobot's DiffusionPolicy, trained by `lerobot-train`.

It hears no words: where a scene has several things to take, only a critic that does can tell which chunk is asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vla_rl.learn.train import bf16
from vla_rl.policy.folder import choose_device

MERGED, RUN, LAST = "data", "run", "checkpoints/last"


@dataclass(frozen=True)
class ThirdParty:
    """How it is trained; small enough for a CPU.

    Attributes:
        steps, batch, lr: of the training.
        horizon: actions that it predicts, a multiple of 8.
        executed: how many of them make a candidate, and are executed.
        channels: widths of its U-Net.
        denoising: DDIM steps at inference.
    """

    steps: int = 2000
    batch: int = 32
    lr: float = 3e-4
    horizon: int = 16
    executed: int = 8
    channels: tuple[int, ...] = (64, 128, 256)
    denoising: int = 10

    def flags(self) -> list[str]:
        """Of `lerobot-train`: one frame of observation, no weights from the network."""
        device = choose_device("auto")
        policy = {
            "type": "diffusion",
            "device": device,
            "push_to_hub": "false",
            "n_obs_steps": 1,
            "horizon": self.horizon,
            "n_action_steps": self.executed,
            "drop_n_last_frames": self.horizon - self.executed,
            "down_dims": list(self.channels),
            "pretrained_backbone_weights": "null",
            "use_group_norm": "true",
            "noise_scheduler_type": "DDIM",
            "num_inference_steps": self.denoising,
            "optimizer_lr": self.lr,
            "use_amp": str(device == "cpu" and bf16("auto", torch.device(device))).lower(),
        }
        run = {"steps": self.steps, "batch_size": self.batch, "save_freq": max(1, self.steps // 4), "num_workers": 1}
        return [f"--policy.{key}={value}" for key, value in policy.items()] + [f"--{k}={v}" for k, v in run.items()]


def train_third_party(out: Path, data: Sequence[Path], how: ThirdParty) -> Path:
    """Train it, or go on; returns the policy's folder.

    Args:
        out: for the merged data set and LeRobot's run.
        data: LeRobotDataset v3 folders.
        how: see there.

    Raises:
        RuntimeError: LeRobot's training failed; its last line.
    """
    policy, last = out / RUN / LAST / "pretrained_model", out / RUN / "checkpoints" / f"{how.steps:06d}"
    if last.is_dir():
        return policy
    merged = _merge(data, out / MERGED)
    if policy.is_dir():
        arguments = ["--resume=true", f"--config_path={policy / 'train_config.json'}"]
    else:
        shutil.rmtree(out / RUN, ignore_errors=True)  # interrupted before its first checkpoint
        where = ["--dataset.repo_id=local/demonstrations", f"--dataset.root={merged}", f"--output_dir={out / RUN}"]
        arguments = [*where, "--wandb.enable=false", *how.flags()]
    _run("lerobot.scripts.lerobot_train", *arguments)
    return policy


def _merge(data: Sequence[Path], out: Path) -> Path:
    """LeRobot trains on one data set: all of them as one, by its own tool; whole or not there."""
    if out.is_dir():
        return out
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    roots, names = (f"[{','.join(map(str, some))}]" for some in (data, [f"local/{i}" for i in range(len(data))]))
    new = ["--new_repo_id=local/demonstrations", f"--new_root={fresh}", "--operation.type=merge"]
    _run("lerobot.scripts.lerobot_edit_dataset", *new, f"--operation.repo_ids={names}", f"--operation.roots={roots}")
    fresh.rename(out)
    return out


def _run(module: str, *arguments: str) -> None:
    """One of LeRobot's tools, offline."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise RuntimeError(f"python -m {module} {' '.join(arguments)} failed with status {done.returncode}")
