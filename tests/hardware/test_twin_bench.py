"""`vla-rl bench twin`: its parts run, and refuse what they are not."""

import importlib
import inspect

import pytest

from vla_rl import bench
from vla_rl.bench import twin


def test_lerobots_drivers_teleoperate_the_twin_without_an_error_and_every_goal_is_heard():
    metrics = bench.run("twin", seconds=3.0, only="rw")["metrics"]
    assert metrics["periods"] == 90
    assert (metrics["read_write_errors"], metrics["goals_unheard"]) == (0, 0)


def test_damage_makes_nothing_crash_and_what_is_lost_is_counted():
    metrics = bench.run("twin", seconds=3.0, only="damaged")["metrics"]
    assert metrics["faulty_bytes"] > 0
    assert (metrics["crashes"], metrics["wrong_id_writes"], metrics["commands_lost_uncounted"]) == (0, 0, 0)


def test_an_unknown_part_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="unknown part 'smoke' of benchmark twin; there are: rw, damaged"):
        bench.run("twin", only="smoke")


@pytest.mark.parametrize("part", twin.PARTS)
def test_every_part_measures(part):
    assert list(inspect.signature(importlib.import_module(f"vla_rl.bench.on_twin.{part}").run).parameters) == [
        "seconds", "quick",
    ]  # fmt: skip


def test_the_parts_package_is_no_benchmark_of_its_own():
    assert "twin" in bench.names()
    assert "on_twin" not in bench.names()
