"""Critics: how fast each learns, and how near it comes to values that are known and to the returns of the tabletop."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.learn.critic_config import CRITIC_ALGORITHMS, CriticRunConfig

OBSERVATION, ACTION, WINDOW = 32, 6, 8  # 48 numbers an action chunk
D3RLPY = {"iql": 97.0, "cql": 13.6, "td3bc": 114.0}
"""Updates a second of d3rlpy 2.8.1 at observation 32, action 48, batch 256, on two cores of a like machine."""
CELLS, GAMMA, TAU = 5, 0.9, 0.9
CARD = {"policy_type": "", "policy_fingerprint": "", "names": [], "data": []}
POLICY, REWARD, SEED = "weak", "dense", 40_000
TABLETOP = ("monte_carlo", "iql", "idql", "cql", "calql", "qc", "td3bc", "rebrac")
"""Learners of a policy's rollouts alone; the others want a human's corrections."""


def run(quick: bool = False) -> dict[str, Any]:
    """Train every critic on numbers of a real run's size, on a line of known values, and on the weak policy's rollouts.

    Args:
        quick: fewer updates, fewer episodes.

    Returns:
        `metrics`: `<algo>_updates_per_s` (batch 256, two critics of 256, 256, head mse, one thread),
        `line_<algo>_error` (of five cells, largest error of Q against the exact values in [0, 1], `EXACT`) and
        `tabletop_<algo>_rank` (see `_tabletop`); `against`: d3rlpy's.
    """
    speeds = {f"{algo}_updates_per_s": _speed(algo, 30 if quick else 200) for algo in CRITIC_ALGORITHMS}
    errors = {f"line_{algo}_error": _line_error(algo, 300 if quick else 600) for algo in EXACT}
    ranks = _tabletop(24, 200) if quick else _tabletop(120, 1000)
    return {"metrics": {**speeds, **errors, **ranks}, "against": {"d3rlpy 2.8.1 (updates/s)": D3RLPY}}


def _speed(algo: str, steps: int) -> float:
    """Updates a second in the second half of a short run."""
    config = CriticRunConfig(algo=algo, steps=2 * steps, log_interval=steps, depth=2, head="mse", **_common())
    lines = _train(config, _noise())[1]
    return float(lines[-1]["steps_per_s"])


def _line_error(algo: str, steps: int) -> float:
    """Error after training on the line, whose goal pays 1; moves are -1 and 1, two a chunk."""
    import torch

    chunks = np.array(list(product((-1.0, 1.0), repeat=2)), np.float32)[..., None]
    exact, shown = _exact(chunks, EXACT[algo])
    small = {"width": 32, "lr": 8e-3, "tau": 0.1, "weight_decay": 0.0}
    gentle = {"alpha": 0.003, "expectile": TAU, "actor_bc": 0.1, "critic_bc": 0.001, "actor_noise": 0.05}
    config = CriticRunConfig(algo=algo, steps=steps, depth=2, head="mse", gamma=GAMMA, **_common() | small | gentle)
    algorithm, _ = _train(config, _line(chunks))
    with torch.no_grad():
        context = algorithm.target.embed(torch.eye(CELLS), torch.zeros(CELLS, 0))
        found = algorithm.target.value(context, torch.from_numpy(chunks).expand(CELLS, -1, -1, -1)).mean(0).numpy()
    return float(np.abs(found - exact)[shown].max())


def _tabletop(episodes: int, steps: int) -> dict[str, float]:
    """Learn from the weak policy's rollouts of all six tasks.

    Args:
        episodes: of all tasks together; three in ten are held out.
        steps: of training.

    Returns:
        `tabletop_<algo>_rank`: rank correlation of the values of executed chunks with the returns that followed, in the
        episodes held out.
    """
    from vla_rl.learn.value import train_value

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        root, policy = _rollouts(f"{folder}/rollouts", episodes)
        asked = {**_common(), "data": (root,), "policy": policy, "reward": REWARD, "holdout": 0.3, "steps": steps}
        runs = {algo: CriticRunConfig(algo=algo, out=f"{folder}/{algo}", **asked) for algo in TABLETOP}
        scores = {algo: train_value(config, progress=False)["score"] for algo, config in runs.items()}
    return {f"tabletop_{algo}_rank": 1.0 - score for algo, score in scores.items()}


def _rollouts(folder: str, episodes: int) -> tuple[str, str]:
    """What the weak policy did, rewarded: the data set, all eight candidates of every chunk in it; and that policy.

    Raises:
        RuntimeError: a command failed; it has said why.
    """
    from vla_rl import build, cli

    drawn = ("--policy", POLICY, "--candidates", "8", "--selector", "random", "--seed", str(SEED))
    played = ("collect", "--task", "all", "--episodes", str(episodes), "--out", folder, *drawn)
    if cli.main(played) or cli.main(("dataset", "reward", folder, "--reward", REWARD, "--tag", REWARD)):
        raise RuntimeError("no rollouts to learn from")
    return str(build.dataset_root(folder)), str(build.check_policy(POLICY))


def _common() -> dict[str, Any]:
    options = {"threads": 1, "device": "cpu", "tensorboard": False, "holdout": 0.0, "prefetch": 0}
    return options | {"checkpoint_interval": 10**6}


def _train(config: CriticRunConfig, data: Any) -> tuple[Any, list[dict[str, float]]]:
    """The trained algorithm, and the lines of its log."""
    from dataclasses import replace

    from vla_rl.learn.train import Training, make_accelerator
    from vla_rl.learn.value import CriticLearner, Source

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        config = replace(config, out=str(out))
        accelerator = make_accelerator(config)
        learner = CriticLearner(config, Source(data, CARD), accelerator.device)
        Training(config, learner, out, accelerator, None, talk=False).run()
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return learner.algorithm.eval(), lines


def _noise(rows: int = 20_000, length: int = 100) -> Any:
    """Transitions of a real run's shapes that never were, eight candidates each."""
    from vla_rl.data.transitions import ChunkTransitions

    rng = np.random.default_rng(0)
    drawn = np.arange(0, rows, WINDOW)
    return ChunkTransitions.from_arrays(
        window=WINDOW,
        gamma=0.99,
        ends="pad",
        need="both",
        features=rng.normal(size=(rows, OBSERVATION)),
        action=rng.normal(size=(rows, ACTION)),
        reward=(np.arange(rows) % length == length - 1).astype(np.float32),
        done=np.arange(rows) % length == length - 1,
        mc_return=rng.uniform(0, 1, rows),
        candidates=rng.normal(size=(len(drawn), 8, WINDOW, ACTION)),
        candidate_rows=drawn,
    )


def _move(cell: int, move: float) -> tuple[int, bool]:
    reached = max(cell + int(move), 0)
    return reached, reached == CELLS


def _expectile(values: NDArray[np.float64]) -> float:
    """What IQL's V converges to: the TAU-expectile of equally likely values (Kostrikov et al., arXiv:2110.06169)."""
    found = float(values.mean())
    for _ in range(100):
        weights = np.where(values < found, 1 - TAU, TAU)
        found = float(np.average(values, weights=weights))
    return found


EXACT: dict[str, Callable[[NDArray[np.float64]], float]] = {
    **dict.fromkeys(("iql", "idql"), _expectile),
    **dict.fromkeys(("qc", "cql", "calql", "td3bc", "rebrac"), lambda values: float(values.max())),
}
"""What a cell is worth, of its chunks' values, to learners whose values are known."""


def _exact(
    chunks: NDArray[np.float32], worth: Callable[[NDArray[np.float64]], float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Q of every cell and chunk, by sweeps, and which chunks can be executed whole."""
    value, q = np.zeros(CELLS + 1), np.zeros((CELLS, len(chunks)))
    shown = np.ones(q.shape, bool)
    for _ in range(200):
        for start, (k, chunk) in product(range(CELLS), enumerate(chunks[..., 0])):
            cell, over, i = start, False, 0
            while not over and i < len(chunk):
                cell, over = _move(cell, chunk[i])
                i += 1
            q[start, k] = GAMMA ** (i - 1) if over else GAMMA ** len(chunk) * value[cell]
            shown[start, k] = i == len(chunk) or chunk[i] == chunk[i - 1]
        value[:CELLS] = [worth(row) for row in q]
    return q, shown


def _line(chunks: NDArray[np.float32]) -> Any:
    """Episodes of random moves from every cell, cut after twelve."""
    from vla_rl.data.transitions import ChunkTransitions

    rng, rows = np.random.default_rng(0), []
    for start in np.tile(np.arange(CELLS), 30):
        cell = int(start)
        for i in range(13):
            move = float(rng.choice([-1.0, 1.0]))
            after, over = _move(cell, move)
            last = i == 12
            rows.append((cell, move, float(over and not last), over and not last, last))
            if over:
                break
            cell = after
    cells, moves, reward, done, cut = (np.array(column) for column in zip(*rows, strict=True))
    returns, later = np.zeros(len(reward)), 0.0
    for i in reversed(range(len(reward))):
        returns[i] = later = reward[i] + GAMMA * (0.0 if done[i] or cut[i] else later)
    return ChunkTransitions.from_arrays(
        window=2,
        gamma=GAMMA,
        ends="pad",
        need="both",
        features=np.eye(CELLS, dtype=np.float32)[cells],
        action=moves[:, None],
        reward=reward,
        done=done,
        truncated=cut,
        mc_return=returns,
        candidates=np.repeat(chunks[None], len(cells), 0),
    )
