"""What the supervisor shows and writes down of its nodes."""

import contextlib
import os
import re

from vla_rl.ros.bringup.console import Console


def shown(tmp_path, *lines):
    """What a console prints of (process, text) lines."""
    with (tmp_path / "out").open("w+") as out:
        console = Console(["policy", "steering", "both"], out)
        for process, text in lines:
            console.line(process, text)
        console.close()
        out.seek(0)
        return out.read().splitlines(), console


def test_a_line_begins_with_the_node_that_wrote_it_and_says_how_serious_it_is(tmp_path):
    lines, _ = shown(
        tmp_path,
        ("both", "[INFO] [left.policy]: loaded"),
        ("both", "[WARN] [steering.child]: late"),
        ("both", "not from ROS"),
    )
    assert lines == ["policy   | loaded", "steering | WARN late", "both     | not from ROS"]


def test_the_reason_is_the_last_error_or_else_the_last_word(tmp_path):
    _, console = shown(
        tmp_path,
        ("both", "[ERROR] [policy]: no such checkpoint"),
        ("both", "[INFO] [policy]: bye"),
        ("steering", "Traceback (most recent call last):"),
        ("steering", "ImportError: no torch"),
        ("steering", ""),
    )
    assert console.reason("policy") == console.reason("both") == "no such checkpoint"
    assert console.reason("steering") == "ImportError: no torch"


def test_a_folder_gets_a_file_a_node_with_times(tmp_path):
    console = Console(["policy"], (tmp_path / "out").open("w"), str(tmp_path / "logs" / "today"))
    console.line("policy", "[INFO] [policy]: loaded")
    console.say("ready")
    console.close()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} loaded\n", (tmp_path / "logs/today/policy.log").read_text())
    assert (tmp_path / "logs/today/supervisor.log").read_text().endswith(" ready\n")


def test_a_terminal_that_takes_no_lines_stops_no_node_and_one_that_is_gone_is_noticed():
    read, write = os.pipe()
    out = os.fdopen(write, "w")
    console = Console(["policy"], out)
    for _ in range(10_000):
        console.line("policy", "x" * 100)  # far more than a pipe holds; must not wait
    assert console.lost > 0
    assert not console.closed
    os.close(read)
    console.close()
    assert console.closed
    with contextlib.suppress(BrokenPipeError):
        out.close()
