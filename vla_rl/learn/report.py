"""What a run says while it trains: a progress bar or plain lines, TensorBoard, Weights & Biases where asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from vla_rl.learn.config import RunConfig


class Report:
    """One voice for a run, on standard error."""

    def __init__(self, config: RunConfig, out: Path, start: int, fraction: float, talk: bool, store: bool) -> None:
        """Open what the config asks for.

        Args:
            config: which loggers, and the run's limits.
            out: folder of the run.
            start: step at which this process begins.
            fraction: share of the budget that is spent at `start`.
            talk: False says nothing but what must not be missed.
            store: False writes no logs: the processes of a distributed run that are not the first.
        """
        self.store = store
        terminal = sys.stderr.isatty()
        self.plain = talk and not terminal
        self.bar = tqdm(total=100.0, initial=100 * fraction, disable=not (talk and terminal), bar_format=_BAR)
        self.board, self.run = None, None
        if store and config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(out / "tensorboard", purge_step=start)
        if store and config.wandb:
            import wandb

            settings = config.to_dict()
            self.run = wandb.init(project=config.wandb, id=_run_id(out), resume="allow", dir=out, config=settings)

    def log(self, step: int, fraction: float, scalars: Mapping[str, float]) -> None:
        """Show and store the scalars of `step`."""
        shown = "  ".join(f"{name} {scalars[name]:.4g}" for name in ("loss", "lr", "steps_per_s") if name in scalars)
        self.bar.set_description_str(f"step {step}  {shown}", refresh=False)
        self.bar.update(100 * fraction - self.bar.n)
        if self.plain:
            print(f"step {step}  {shown}  {fraction:.0%}", file=sys.stderr, flush=True)
        if self.board is not None:
            for name, value in scalars.items():
                self.board.add_scalar(f"train/{name}", value, step)
        if self.run is not None:
            self.run.log(dict(scalars), step=step)

    def say(self, line: str) -> None:
        """A line that must not be missed, above the bar; the first process speaks for all."""
        if self.store:
            tqdm.write(f"vla-rl train: {line}", file=sys.stderr)

    def close(self) -> None:
        """Finish the bar and flush the logs."""
        self.bar.close()
        if self.board is not None:
            with contextlib.suppress(OSError):  # a full disk has been complained about already
                self.board.close()
        if self.run is not None:
            self.run.finish()


_BAR = "{desc} |{bar}| {percentage:3.0f}% [{elapsed}<{remaining}]"


def _run_id(out: Path) -> str:
    """A name for the run that resuming finds again."""
    return "-".join(out.resolve().parts[-2:])


class Means:
    """Means of what the good steps report, kept on the device: reading them is the only synchronisation."""

    def __init__(self) -> None:
        """Start empty."""
        self.sums: dict[str, Tensor] = {}
        self.count: Tensor | float = 0.0

    def add(self, values: Mapping[str, Tensor], bad: Tensor) -> None:
        """Add one step's detached scalars; those of a step that is `bad` (scalar bool) do not count."""
        for name, value in values.items():
            kept = value.masked_fill(bad, 0.0)
            self.sums[name] = self.sums[name] + kept if name in self.sums else kept
        self.count = self.count + ~bad

    def read(self) -> dict[str, float]:
        """The means since the last reading, none where no step was good; synchronises with the device."""
        count = float(self.count)
        means = {name: float(total) / count for name, total in self.sums.items()} if count else {}
        self.sums, self.count = {}, 0.0
        return means


@contextlib.contextmanager
def counter(what: str, talk: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that reports (done, total); silent unless `talk` and there is a terminal."""
    with tqdm(desc=what, disable=not (talk and sys.stderr.isatty())) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
