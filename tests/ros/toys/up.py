"""`vla-rl up` for the toy graph: JSON on the command line says how each node behaves."""

import json
import signal
import sys
import time
from dataclasses import asdict

from vla_rl.ros.bringup.console import Console
from vla_rl.ros.bringup.graph import Graph, NodeSpec, ProcessSpec
from vla_rl.ros.bringup.supervisor import Supervisor

AFTER = {"robot": (), "control": ("robot",), "steering": ("control",), "policy": ("steering",)}


def toy_graph(ask):
    nodes = {
        name: NodeSpec(name, ask.get(name, {}), name != "robot", after, "joint_states" if name == "robot" else "")
        for name, after in AFTER.items()
    }
    processes = (
        ProcessSpec("robot", "toys.robot", (nodes["robot"],)),
        ProcessSpec("policy_steering", "toys.policy_steering", (nodes["policy"], nodes["steering"])),
        ProcessSpec("control", "toys.control", (nodes["control"],)),
    )
    return Graph(processes, ask.get("namespace", ""))


def main():
    ask = json.loads(sys.argv[1])
    stop = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.append(1))
    graph = toy_graph(ask)
    console = Console([*AFTER, *(p.name for p in graph.processes)], folder=ask.get("logs", ""))
    supervisor = Supervisor(graph, console, patience_s=ask.get("patience_s", 100.0))
    end = time.monotonic() + ask.get("duration", 1000.0)
    progress = supervisor.run(lambda: stop or time.monotonic() > end or (ask.get("once") and supervisor.ready))
    console.close()
    print(json.dumps(asdict(progress)), flush=True)
    return 1 if progress.failure else 0


if __name__ == "__main__":
    sys.exit(main())
