"""The training loop, all of it: any learner that has a model, batches and a way to save itself goes through here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from safetensors import SafetensorError
from torch import Tensor, nn

from vla_rl.learn.checkpoint import Checkpoint, CheckpointStore
from vla_rl.learn.config import RunConfig
from vla_rl.learn.ema import Ema
from vla_rl.learn.feed import ahead, step_seed
from vla_rl.learn.guard import Diverged, FiniteGuard
from vla_rl.learn.report import Means, Report
from vla_rl.learn.run import RUN, Interrupt, provenance, write_json
from vla_rl.learn.schedule import Budget, learning_rate
from vla_rl.learn.state import load_state, parameter_groups, save_state
from vla_rl.record.durable import locked, whole_file

LOG = "log.jsonl"
NOISE = 0
"""Stream of `step_seed` for the model's own chance; learners use others for theirs."""


class Learner(Protocol):
    """What an algorithm gives to the loop; the last three have defaults that suit plain supervised learning."""

    model: nn.Module
    """`model(batch) -> (loss, info)`, info holding detached scalar tensors."""

    def batch(self, step: int) -> Any:
        """The batch of a step on the model's device, a pure function of `step`; called from another thread."""

    def describe(self, step: int) -> str:
        """What the batch of a step was made of, for a message."""

    def score(self) -> float | None:
        """Loss on what was held out, lower is better; None where nothing was."""

    def save(self, folder: Path) -> None:
        """Write the model as a policy folder."""

    def facts(self) -> dict[str, Any]:
        """JSON-ready description of the data, kept with the run and with every checkpoint."""

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for AdamW; `scale` in a group multiplies its learning rate."""
        return parameter_groups(self.model, weight_decay)

    def after(self, step: int) -> None:
        """Called behind optimiser step number `step` (from 0): targets follow here."""
        return

    def state(self) -> dict[str, Tensor]:
        """What else a step changes (target networks): saved beside the weights, and put back in place."""
        return {}


def make_accelerator(config: RunConfig) -> Accelerator:
    """Processes and device as `accelerate launch` or the config say.

    Raises:
        ValueError: the device is not there.
    """
    if config.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got '{config.device}'")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: torch sees no GPU here; use --device cpu")
    if config.threads:
        torch.set_num_threads(config.threads)
    # a policy has weights that only some losses reach: guidance, labels
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=config.device == "cpu", kwargs_handlers=[unused])


def bf16(setting: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as told, or where the hardware has units for it."""
    if setting != "auto":
        return setting == "on"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


class Training:
    """A learner on its way: the loop and the little state it has."""

    def __init__(
        self,
        config: RunConfig,
        learner: Learner,
        out: Path,
        accelerator: Accelerator,
        checkpoint: Checkpoint | None = None,
        talk: bool = True,
    ) -> None:
        """Set up optimiser and averages; nothing is written yet.

        Args:
            config: of the run.
            learner: what is trained; its model carries the (averaged) weights of the checkpoint where there is one.
            out: folder of the run, see `check_out`.
            accelerator: from `make_accelerator`.
            checkpoint: where to go on from.
            talk: whether to show a bar, or lines where there is no terminal.
        """
        self.config, self.learner, self.out, self.accelerator = config, learner, out, accelerator
        record = checkpoint.record if checkpoint else {}
        self.step, self.before = int(record.get("step", 0)), float(record.get("elapsed", 0.0))
        self.first = self.step
        self.budget = Budget(config.limit, config.minutes * 60 if config.minutes else None)
        self.weights = [p for p in learner.model.parameters() if p.requires_grad]
        groups = [{"scale": 1.0, **group} for group in learner.groups(config.weight_decay)]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)
        self.ema = Ema(learner.model, config.ema)
        if checkpoint:
            load_state(checkpoint.path, learner.model, self.optimizer, learner.state())
        counts = {k: int(record.get(k, 0)) for k in ("skipped", "streak")}
        self.guard = FiniteGuard(self.optimizer, accelerator.device, **counts)
        forward: Callable[..., tuple[Tensor, dict[str, Tensor]]] = accelerator.prepare_model(learner.model)
        self.forward = self._compiled(forward) if config.compile else forward
        self.main, self.talk = accelerator.is_main_process, talk
        self.store = CheckpointStore(out / "checkpoints", config.keep)
        self.means, self.since = Means(), Means()
        self.autocast = bf16(config.bf16, accelerator.device)
        self.watch = 1 if accelerator.device.type == "cpu" else config.log_interval  # reading a flag waits for a GPU
        self.saved, self.unsaved = checkpoint, ""
        self.waited = 0.0

    def _compiled(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward pass compiled, after one plain run: checks that a model makes only once would break its graph."""
        with torch.no_grad():
            forward(self.learner.batch(self.step))
        return torch.compile(forward)

    def run(self) -> dict[str, Any]:
        """Train to the end of the budget, or until asked to stop.

        Returns:
            JSON-ready result, also in OUT/result.json.

        Raises:
            Diverged: too many steps in a row were not finite; the last good weights are saved.
            OSError: the last checkpoint could not be written.
        """
        config, rank = self.config, self.accelerator.process_index
        with ExitStack() as stack:
            if self.main:
                self.out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.out / ".lock", f"--out {self.out}"))
                self._claim()
            spent = self._fraction(self.before)
            self.report = Report(config, self.out, self.step, spent, talk=self.talk and self.main, store=self.main)
            stack.callback(self.report.close)
            interrupt = stack.enter_context(Interrupt())
            batches = stack.enter_context(closing(ahead(self.learner.batch, self.step, config.prefetch)))
            self.learner.model.train()
            self.started = self.marked = time.monotonic()
            self.marked_step = self.step
            while True:
                fraction, stop = self._agree(self._fraction(self.elapsed), interrupt.asked)
                if stop or fraction >= 1.0:
                    break
                waiting = time.monotonic()
                batch = next(batches)
                self.waited += time.monotonic() - waiting
                torch.manual_seed(step_seed(config.seed, self.step, rank, NOISE))
                self._update(batch, learning_rate(self.step, fraction, config.lr, config.warmup))
                if self.step % self.watch == 0:
                    self._stop_if_diverged()
                if self.step % config.log_interval == 0:
                    self._log(fraction)
                if self.step % config.checkpoint_interval == 0:
                    self._save()
            return self._finish(interrupted=bool(stop))

    def _update(self, batch: Any, rate: float) -> None:
        """One optimiser step, left out on the device itself where it is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.autocast):
            loss, info = self.forward(batch)
        self.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.grad_clip or float("inf"), foreach=True)
        bad = self.guard.check(self.step, loss, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.step)
        self.learner.after(self.step)
        self.step += 1
        self.means.add({**info, "loss": loss.detach(), "grad_norm": norm}, bad)
        self.since.add({"loss": loss.detach()}, bad)

    @property
    def elapsed(self) -> float:
        """Training time of the whole run, earlier parts included [s]."""
        return self.before + time.monotonic() - self.started

    def _fraction(self, elapsed: float) -> float:
        return self.budget.fraction(self.step, elapsed)

    def _agree(self, fraction: float, stop: bool) -> tuple[float, bool]:
        """The first process's clock and signals are everybody's, or the processes would part ways."""
        if self.accelerator.num_processes > 1:
            agreed = broadcast(torch.tensor([fraction, float(stop)], device=self.accelerator.device)).tolist()
            return agreed[0], bool(agreed[1])
        return fraction, stop

    def _claim(self) -> None:
        """Make the folder ours, and forget what the log says of steps that will be taken again."""
        self.store.tidy()
        facts = {"config": self.config.to_dict(), "data": self.learner.facts(), **provenance()}
        write_json(self.out / RUN, facts)
        self.facts = facts
        log = self.out / LOG
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.step]
        with whole_file(log) as file:
            file.write("".join(kept).encode())

    def _log(self, fraction: float) -> None:
        now, scalars = time.monotonic(), self.means.read()
        seconds = now - self.marked
        scalars |= {
            "lr": self.optimizer.param_groups[0]["lr"],
            "steps_per_s": (self.step - self.marked_step) / seconds,
            "skipped": float(self.guard.skipped),
        }
        self.marked, self.marked_step = now, self.step
        if not self.main:
            return
        try:
            with (self.out / LOG).open("a") as file:
                file.write(json.dumps({"step": self.step, **scalars}) + "\n")
            self.report.log(self.step, fraction, scalars)
        except OSError as error:
            self.report.say(f"WARNING: log of step {self.step} not written: {error}")

    def _save(self) -> None:
        """Write a checkpoint; where that fails, say so loudly and train on from memory."""
        if not self.main:
            return
        mean = self.since.read().get("loss")
        with self.ema.applied():
            score = self.learner.score()
        self.learner.model.train()
        record = {**self.facts, "elapsed": self.elapsed, "score": mean if score is None else score}
        record |= {"skipped": int(self.guard.skipped), "streak": int(self.guard.streak), "held_out": score is not None}
        try:
            self.saved, self.unsaved = self.store.save(self.step, self._write, record), ""
        except OSError as error:
            self.unsaved = f"checkpoint of step {self.step} not saved: {error}"
            held = f"the one of step {self.saved.step} is whole" if self.saved else "there is none yet"
            self.report.say(f"WARNING: {self.unsaved}; {held}; training goes on and tries again at the next interval")

    def _write(self, folder: Path) -> None:
        try:
            with self.ema.applied():
                self.learner.save(folder)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        save_state(folder, self.learner.model, self.optimizer, self.learner.state())

    def _stop_if_diverged(self) -> None:
        if int(self.guard.longest) < self.config.bad_steps:
            return
        bad = int(self.guard.last_bad)
        self._save()
        kept = self.saved.path if self.saved and not self.unsaved else "no checkpoint"
        raise Diverged(
            f"loss or gradients were not finite in {int(self.guard.longest)} steps in a row, the last one step {bad} "
            f"on {self.learner.describe(bad)}; those steps changed nothing, the weights before them are in {kept}"
        )

    def _finish(self, interrupted: bool) -> dict[str, Any]:
        """Save what is not saved yet, and sum up."""
        if self.saved is None or self.saved.step != self.step or self.unsaved:
            self._save()
        self.accelerator.wait_for_everyone()
        if self.unsaved:
            raise OSError(f"{self.unsaved}; make room and go on with --resume")
        seconds, steps = time.monotonic() - self.started, self.step - self.first
        result = {
            "stopped": "interrupted" if interrupted else "done",
            "steps": self.step,
            "minutes": self.elapsed / 60,
            "steps_per_s": steps / seconds,
            "data_wait": self.waited / seconds,
            "skipped": int(self.guard.skipped),
            "device": str(self.accelerator.device),
            "bf16": self.autocast,
            "parameters": sum(p.numel() for p in self.learner.model.parameters()),
        }
        if self.main and self.saved:
            result |= {"checkpoint": str(self.saved.path), "score": self.saved.record["score"]}
            write_json(self.out / "result.json", result)
        if interrupted:
            self.report.say(f"stopped at step {self.step}, saved in {self.out}; the same command with --resume goes on")
        return result
