"""Small decision problems whose values are known, recorded as episodes, and a learner for them."""

from itertools import product
from pathlib import Path

import numpy as np
import torch

from vla_rl.data.transitions import ChunkTransitions
from vla_rl.learn.bc import newest
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.train import Training, make_accelerator
from vla_rl.learn.value import CriticLearner, Source

GAMMA = 0.9
CARD = {"policy_type": "vla_rl", "policy_fingerprint": "", "names": [], "data": []}


class World:
    """Cells on a line or grid, moves of one cell, walls around, and a goal in the last corner: it pays 1 and ends it.

    Args:
        size: cells along each direction; the goal is the last of them all.
        window: moves a chunk.
    """

    def __init__(self, size=(6,), window=2):
        self.size, self.window, self.goal = np.array(size), window, int(np.prod(size)) - 1
        steps = np.eye(len(size), dtype=np.float32)
        self.moves = np.concatenate([-steps, steps])
        self.chunks = np.array(list(product(self.moves, repeat=window)), np.float32)  # (K, h, A)

    def step(self, cell, move):
        place = np.array(np.unravel_index(cell, self.size)) + np.sign(move).astype(int)
        reached = int(np.ravel_multi_index(np.clip(place, 0, self.size - 1), self.size))
        return reached, float(reached == self.goal), reached == self.goal

    def run(self, cell, chunk):
        """Reward, discount, next cell and moves made, of a whole chunk."""
        for i, move in enumerate(chunk):
            cell, paid, over = self.step(cell, move)
            if over:
                return GAMMA**i * paid, 0.0, cell, i + 1
        return 0.0, GAMMA ** len(chunk), cell, len(chunk)

    def solve(self, state_value, sweeps=200):
        """Q (n, K) and V (n,) at the fixed point of V(s) = state_value(Q(s, .)), n cells before the goal."""
        outcomes = [[self.run(s, c)[:3] for c in self.chunks] for s in range(self.goal)]
        value = np.zeros(self.goal + 1)
        for _ in range(sweeps):
            q = np.array([[r + d * value[n] for r, d, n in row] for row in outcomes])
            value[: self.goal] = [state_value(row) for row in q]
        return q, value[: self.goal]

    def possible(self):
        """Which chunks can be executed whole, or repeat their last move at the goal, (n, K): what data can show."""
        made = [[self.run(s, c)[3] for c in self.chunks] for s in range(self.goal)]
        return np.array(
            [[bool((c[m:] == c[m - 1]).all()) for c, m in zip(self.chunks, row, strict=True)] for row in made]
        )

    def record(self, episodes=150, seed=0, limit=12):
        """Episodes of uniformly drawn moves, from everywhere; cut after `limit` steps, which is no terminal."""
        rng = np.random.default_rng(seed)
        rows = {name: [] for name in ("state", "action", "reward", "done", "truncated")}
        for number in range(episodes):
            self._episode(rows, rng, number % self.goal, limit)
        return rows

    def _episode(self, rows, rng, cell, limit):
        for i in range(limit + 1):
            move = self.moves[rng.integers(len(self.moves))]
            after, paid, over = self.step(cell, move)
            last = i == limit  # an observation only
            values = (cell, move, 0.0 if last else paid, over and not last, last)
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
            cell = after
            if over:
                return


def expectile(values, tau):
    """The tau-expectile of equally likely values."""
    found = values.mean()
    for _ in range(200):
        weight = np.where(values < found, 1 - tau, tau)
        found = (weight * values).sum() / weight.sum()
    return found


def transitions(rows, window, cells, candidates=None, **changes):
    """Recorded rows as chunk transitions; `candidates` (K, h, A) are offered at every row."""
    state = np.asarray(rows["state"])
    features = np.eye(cells, dtype=np.float32)[state]
    arrays = {name: np.asarray(rows[name]) for name in ("reward", "done", "truncated")}
    arrays |= {"features": features, "action": np.asarray(rows["action"], np.float32)}
    arrays["mc_return"] = returns(arrays["reward"], arrays["done"] | arrays["truncated"])
    if candidates is not None:
        arrays |= {"candidates": np.repeat(candidates[None], len(state), 0), "need": "both"}
    return ChunkTransitions.from_arrays(**{"window": window, "gamma": GAMMA, "ends": "pad", **arrays, **changes})


def returns(reward, over):
    """Discounted sum of what follows, without bootstrapping."""
    total, after = np.zeros(len(reward), np.float32), 0.0
    for i in reversed(range(len(reward))):
        after = reward[i] + GAMMA * (0.0 if over[i] else after)
        total[i] = after
    return total


def settings_of(out: Path, **changes):
    """A run that is small and fast."""
    settings = {
        "steps": 400,
        "batch": 96,
        "width": 32,
        "lr": 8e-3,
        "tau": 0.1,
        "depth": 2,
        "gamma": GAMMA,
        "holdout": 0.0,
    }
    settings |= {"device": "cpu", "threads": 1, "bf16": "off", "tensorboard": False, "head": "mse", "prefetch": 0}
    settings |= {"checkpoint_interval": 10**6, "weight_decay": 0.0, "out": str(out)}
    return CriticRunConfig(**settings | changes)


def learn(data, out: Path, **changes):
    """The algorithm after training through the loop."""
    config = settings_of(out, **changes)
    learner = CriticLearner(config, Source(data, CARD))
    checkpoint = newest(out) if config.resume else None
    Training(config, learner, out, make_accelerator(config), checkpoint, talk=False).run()
    return learner.algorithm.eval()


def q_table(algorithm, states, chunks):
    """Mean of the target ensemble at every state and chunk, (n, K)."""
    with torch.no_grad():
        context = algorithm.target.embed(torch.eye(states), torch.zeros(states, 0))
        offered = torch.from_numpy(chunks).unsqueeze(0).expand(states, -1, -1, -1)
        return algorithm.target.value(context, offered).mean(0).numpy()


def v_table(algorithm, states):
    """The state value everywhere, (n,)."""
    with torch.no_grad():
        return algorithm.value(torch.eye(states), torch.zeros(states, 0)).mean(0).numpy()
