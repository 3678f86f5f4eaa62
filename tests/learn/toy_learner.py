"""A learner of 420 parameters, small enough to be killed fifteen times, with chance wherever a real one has it."""

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from vla_rl.learn.checkpoint import Checkpoint, CheckpointStore
from vla_rl.learn.config import BCConfig
from vla_rl.learn.feed import step_seed
from vla_rl.learn.run import check_out
from vla_rl.learn.train import Learner, Training, make_accelerator


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))

    def forward(self, batch):
        noise = 0.1 * torch.randn(batch["x"].shape[0], 4)
        loss = (self.layers(batch["x"]) + noise - batch["y"]).square().mean() * batch["poison"]
        return loss, {"noise": noise.mean().detach()}


class ToyLearner(Learner):
    def __init__(self, config, poisoned=(), policy=None):
        torch.manual_seed(config.seed)
        self.config, self.poisoned = config, poisoned
        self.model = Net()
        if policy is not None:
            load_model(self.model, policy / "model.safetensors")

    def batch(self, step):
        chance = torch.Generator().manual_seed(step_seed(self.config.seed, step, stream=1))
        x = torch.randn(self.config.batch, 8, generator=chance)
        poison = torch.tensor(float("nan") if step in self.poisoned else 1.0)
        return {"x": x, "y": x[:, :4] - x[:, 4:], "poison": poison}

    def describe(self, step):
        return f"episodes {step} and {step + 1}"

    def score(self):
        return None

    def save(self, folder):
        save_model(self.model, folder / "model.safetensors")

    def facts(self):
        return {"kind": "toy"}


def config(out, **changes):
    settings = {"batch": 16, "steps": 60, "checkpoint_interval": 20, "log_interval": 1, "warmup": 5, "lr": 1e-2}
    settings |= {"device": "cpu", "bf16": "off", "tensorboard": False, "out": str(out)}
    return BCConfig(**settings | changes)


def newest(out) -> Checkpoint | None:
    return CheckpointStore(Path(out) / "checkpoints", warn=lambda line: None).newest()


def training(config, learner=None, poisoned=()):
    """The loop on a toy, resumed where the config says so, as `train_bc` does for a policy."""
    check_out(Path(config.out), config)
    found = newest(config.out) if config.resume else None
    learner = learner or ToyLearner(config, poisoned, found.path if found else None)
    return Training(config, learner, Path(config.out), make_accelerator(config), found, talk=False)


def train_in_child(config):
    """Entry point of the processes that tests kill."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    training(config).run()
    os._exit(0)


if __name__ == "__main__":  # one of several processes; step 3 is bad in the second one only
    settings = config(sys.argv[1], steps=6, checkpoint_interval=3)
    training(settings, poisoned=(3,) if os.environ["RANK"] == "1" else ()).run()
