"""Problems made to expose one mistake each: stitching, time limits, actions without data, intervention edges."""

import re

import numpy as np
import pytest
import torch
from mdps import GAMMA, World, learn, q_table, returns, transitions

from vla_rl.data.transitions import ChunkTransitions

LEFT, RIGHT = np.full((2, 1), -1.0, np.float32), np.full((2, 1), 1.0, np.float32)
LINE = World((6,), window=2)


def forks():
    """Cells: 0 start, 1 crossing, 2 dead end, 3 side entry, 4 before the goal, 5 ditch.

    Demonstrated are start - crossing - dead end, start - ditch, and side entry - crossing - goal: the start never saw a
    success, and only who joins the first piece of one episode to the last of another knows which way to set out.
    """
    pieces = [
        ([0, 1, 2], [1, -1], 0.0),  # right to the crossing, then left into the dead end
        ([0, 5, 5], [-1, -1], 0.0),
        ([0, 5, 5], [-1, 1], 0.0),
        ([3, 1, 4], [1, 1], 1.0),
    ]
    rows = {name: [] for name in ("state", "action", "reward", "done", "truncated")}
    for _ in range(15):
        for cells, moves, paid in pieces:
            for i, move in enumerate(moves):
                over = i == len(moves) - 1
                values = (cells[i], [float(move)], paid * over, over, False)
                for name, value in zip(rows, values, strict=True):
                    rows[name].append(value)
    return rows


@pytest.mark.parametrize(("algo", "options"), [("iql", {"expectile": 0.9}), ("qc", {})])
def test_td_learners_stitch_what_imitation_and_returns_cannot(tmp_path, algo, options):
    moves = np.stack([LEFT[:1], RIGHT[:1]])  # window 1: two chunks
    rows = forks()
    data = transitions(rows, 1, 6, moves if algo == "qc" else None)
    away, to_crossing = q_table(learn(data, tmp_path / "td", algo=algo, **options), 6, moves)[0]
    assert to_crossing > away + 0.4
    naive = q_table(learn(transitions(rows, 1, 6), tmp_path / "mc", algo="monte_carlo"), 6, moves)[0]
    assert abs(naive[1] - naive[0]) < 0.1  # neither ever paid
    start = np.asarray(rows["state"]) == 0
    succeeded = np.repeat(returns(np.asarray(rows["reward"]), np.asarray(rows["done"]))[::2] > 0, 2)
    assert not (start & succeeded).any()  # filtered BC has nothing to imitate there
    assert np.asarray(rows["action"])[start].mean() < 0.0  # and BC imitates what was done most: the ditch


def treadmill(episodes=60, length=5):
    """One cell, -1 a step for ever, cut after a few steps."""
    steps = np.tile(np.arange(length + 1), episodes)
    rng = np.random.default_rng(0)
    rows = {"state": np.zeros(len(steps), int), "reward": np.where(steps < length, -1.0, 0.0)}
    rows["action"] = rng.choice([-1.0, 1.0], (len(steps), 1))
    return rows | {"done": np.zeros(len(steps), bool), "truncated": steps == length}


@pytest.mark.parametrize("algo", ["iql", "qc"])
def test_a_time_limit_bootstraps_and_taking_it_for_a_terminal_shows(tmp_path, algo):
    endless = -1.0 / (1.0 - GAMMA)
    options = {"low": -12.0, "high": 1.0, "expectile": 0.5, "algo": algo}
    offered = np.stack([LEFT, RIGHT])
    rows = treadmill()
    right = learn(transitions(rows, 2, 1, offered), tmp_path / "right", **options)
    assert np.abs(q_table(right, 1, offered) - endless).max() < 0.6
    merged = np.roll(rows["truncated"], -1)  # LeRobot's record mode: a time limit is written as done
    wrong = learn(transitions(rows | {"done": merged}, 2, 1, offered), tmp_path / "wrong", **options)
    assert q_table(wrong, 1, offered).min() > -4.2  # at most five steps of -1


def test_conservative_learners_distrust_chunks_without_data(tmp_path):
    """Data that only ever moves right. CQL trusts no move left; Cal-QL neither, but keeps the scale of real returns."""
    rows = LINE.record()
    rows["action"] = np.abs(rows["action"])
    rows["reward"] = np.zeros(len(rows["state"]))
    rows["reward"][np.asarray(rows["done"])] = 1.0
    offered, found = np.stack([LEFT, RIGHT]), {}
    data = transitions(rows, 2, LINE.goal, offered)
    for algo in ("cql", "calql"):
        learned = learn(data, tmp_path / algo, algo=algo, alpha=0.3, uniform=0)
        found[algo] = q_table(learned, LINE.goal, offered)
        assert (found[algo][:, 1] > found[algo][:, 0] - 0.1).all()
    least = min(data.batch(np.arange(len(data))).mc_return.numpy())
    assert found["cql"][:, 0].max() < least - 0.2  # pushed down without end
    assert found["calql"][:, 0].min() > least - 0.2  # no further than to what the data earned


@pytest.mark.parametrize("head", ["c51", "quantile"])
@pytest.mark.parametrize("algo", ["iql", "qc", "td3bc"])
def test_a_head_that_keeps_distributions_knows_a_risk_before_it_is_taken(tmp_path, algo, head):
    """A step that earns nothing leads to a coin: its return is +-gamma, which no expectation tells."""
    coins = np.tile([1.0, -1.0], 60)
    rows, last = 2 * len(coins), np.tile([False, True], len(coins))
    data = ChunkTransitions.from_arrays(
        window=1, gamma=GAMMA, ends="pad", need="both", features=np.tile(np.eye(2, dtype=np.float32), (len(coins), 1)),
        action=np.zeros((rows, 1)), reward=np.repeat(coins, 2) * last, done=last, candidates=np.zeros((rows, 2, 1, 1)),
    )  # fmt: skip
    learned = learn(data, tmp_path, algo=algo, head=head, bins=21, low=-1.5, high=1.5, steps=500)
    with torch.no_grad():
        target = learned.target
        out = target.logits(target.embed(torch.eye(2)[:1], torch.zeros(1, 0)), torch.zeros(1, 1, 1, 1))
    assert float(target.head.mean(out).abs().max()) < 0.2
    assert float(target.head.variance(out).min()) > 0.5 * GAMMA**2
    assert float(target.head.quantile(out, 0.2).max()) < -0.6 * GAMMA


def test_a_takeover_edge_is_never_bootstrapped_across(tmp_path):
    """HIL-SERL's demo store and LeRobot's offline buffer join one correction's end to the next one's start."""
    rows = LINE.record(30)
    human = np.zeros(len(rows["state"]), bool)
    human[4::9] = human[5::9] = True
    data = transitions(rows, 2, LINE.goal, intervention=human)
    batch = data.batch(np.arange(len(data)))
    follows = batch.discount > 0
    row, steps = batch.index[follows].numpy(), np.log(batch.discount[follows].numpy()) / np.log(GAMMA)
    after = row + np.round(steps).astype(int)
    assert (human[row] == human[after]).all()
    assert ([rows["state"][i] for i in after] == batch.next_features[follows].argmax(1).numpy()).all()


def test_a_support_that_clips_targets_is_said_with_the_range_needed(tmp_path, capsys):
    learn(transitions(treadmill(), 2, 1), tmp_path / "run", algo="iql", low=-1.0, high=1.0, steps=20, head="hl-gauss")
    said = capsys.readouterr().err
    assert "lie outside the support" in said
    low, high = re.search(r"set --low and --high; rewards and discount allow \[(\S+), (\S+)\]", said).groups()
    assert float(low) < -1 / (1 - GAMMA) < 0 <= float(high)  # targets of clipped values need less than values do


@pytest.mark.parametrize("head", ["mse", "quantile"])
def test_a_head_that_clips_nothing_is_not_said_to(tmp_path, capsys, head):
    learn(transitions(treadmill(), 2, 1), tmp_path / "run", algo="iql", low=-1.0, high=1.0, steps=20, head=head)
    assert "clipped" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algo": "monte_carlo"}, "monte_carlo needs Monte-Carlo returns"),
        ({"algo": "calql"}, "calql needs"),
        ({"algo": "qc"}, "qc needs chunks of the policy"),
        ({"algo": "iql", "ensemble": 1, "aggregate": "lcb"}, "lcb needs an ensemble of 2 or more"),
        ({"algo": "iql", "expectile": 1.0}, "expectile must lie between 0 and 1"),
        ({"algo": "sac"}, "algo must be monte_carlo"),
        ({"algo": "iql", "mix": (1.0, 1.0)}, "2 shares for 1 data sets"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_line(tmp_path, changes, said):
    data = transitions(LINE.record(10), 2, LINE.goal, mc_return=None)
    with pytest.raises(ValueError, match=said) as refusal:
        learn(data, tmp_path / "run", **changes)
    assert "\n" not in str(refusal.value)
