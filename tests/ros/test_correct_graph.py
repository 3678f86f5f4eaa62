"""The graph with an operator, as plain data; and the keys of the terminal that it is started from."""

import os
import pty
import sys

import pytest

from vla_rl.hil.devices.keyboard import Keyboard
from vla_rl.hil.driving import Driving
from vla_rl.ros.bringup import keys
from vla_rl.ros.bringup.graphs import GRAPHS
from vla_rl.ros.bringup.options import correct_graph, sim_graph


def parameters(graph, node):
    return next(n.parameters for n in graph.nodes if n.name == node)


def test_it_is_the_simulated_robot_with_an_operator_and_a_recorder():
    plain, correct = sim_graph(), correct_graph()
    assert {n.name for n in correct.nodes} - {n.name for n in plain.nodes} == {"hil", "recorder"}
    assert {p.name for p in correct.processes} >= {p.name for p in plain.processes}
    assert next(n for n in correct.nodes if n.name == "hil").after == ("control",)


def test_what_is_asked_for_reaches_operator_and_recorder(tmp_path):
    asked = {"session": str(tmp_path), "cameras": "front", "compressed": "true", "operator_device": "leader"}
    graph = correct_graph(asked)
    for node in ("hil", "recorder"):
        assert parameters(graph, node)["cameras"] == ["front"]
        assert parameters(graph, node)["image_transport"] == "compressed"
    assert parameters(graph, "hil")["device"] == "leader"
    assert parameters(graph, "recorder")["session"] == str(tmp_path)
    assert parameters(graph, "policy")["cameras"] == ["front"]


def test_an_operator_may_do_without_a_recorder():
    assert "recorder" not in {n.name for n in correct_graph({"record": "false"}).nodes}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"operator_device": "wand"}, "there are: page, keyboard"),
        ({"ask_for_help": "nowhere.json"}, "there is no such file"),
        ({"port": "high"}, "a whole number"),
        ({"wand": "1"}, "unknown option 'wand'; there are: session"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(asked, said):
    with pytest.raises(ValueError, match=said):
        correct_graph(asked)


def test_every_graph_has_its_options():
    for make, options, text in GRAPHS.values():
        assert make({option.name: "" for option in options}).nodes
        assert text


def test_keys_of_the_terminal_reach_the_keyboard_of_a_node_that_has_none(monkeypatch):
    fingers, terminal = pty.openpty()
    monkeypatch.setattr(sys, "stdin", os.fdopen(terminal))
    with keys.relayed() as path:
        keyboard, now = Keyboard(Driving(), path), 10**9
        os.write(fingers, b"w ")
        said = keyboard.read(now)
        while not said.buttons:
            said = keyboard.read(now)
        assert said.buttons == ("toggle",)
        keyboard.close()
    assert not os.path.exists(path)
    os.close(fingers)


def test_a_keyboard_without_a_terminal_is_refused(monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(ValueError, match="needs a terminal"), keys.relayed():
            pass
