"""The button's time to a command is counted from the press that made the edge, whatever the clocks' difference."""

import numpy as np
import pytest

from vla_rl.bench.takeover import CLOCK_NS, _causes
from vla_rl.execute.arbiter import Edge
from vla_rl.types import Mode

MS = 1_000_000


def story(seed, behind_ns=0, count=50):
    rng = np.random.default_rng(seed)
    pressed = np.cumsum(rng.integers(50 * MS, 150 * MS, count)).tolist()
    edges = [
        Edge(7 + i, (Mode.CORRECTING, Mode.AUTONOMOUS)[i % 2], at + int(rng.integers(0, 30 * MS)) - behind_ns)
        for i, at in enumerate(pressed)
    ]
    return pressed, edges


@pytest.mark.parametrize("behind_ns", [0, 5 * MS, CLOCK_NS])
@pytest.mark.parametrize("seed", range(5))
def test_every_edge_has_the_press_that_made_it_though_the_robots_clock_is_behind(seed, behind_ns):
    pressed, edges = story(seed, behind_ns)
    assert _causes(pressed, edges[::-1]) == {edge.number: at for edge, at in zip(edges, pressed, strict=True)}


@pytest.mark.parametrize("seed", range(5))
def test_where_an_edge_was_lost_the_others_keep_their_press(seed):
    pressed, edges = story(seed, 2 * MS)
    del edges[20]
    wanted = {edge.number: pressed[edge.number - 7] for edge in edges}
    assert _causes(pressed, edges) == wanted
