"""Retrace a whole episode: policy, steering and gate, set up as the episode's own first message says they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from vla_rl.execute.config import ControlConfig
from vla_rl.execute.foresight import ForesightConfig
from vla_rl.execute.player import PlayerConfig
from vla_rl.policy.engine import Engine, EngineConfig, load_engine
from vla_rl.policy.fingerprint import fingerprint
from vla_rl.policy.folder import choose_device
from vla_rl.policy.perturb import PerturbConfig
from vla_rl.record.folder import EpisodeEntry
from vla_rl.record.tape import Tape
from vla_rl.rollout.retrace import AsRecorded, Part, looked_at, retrace_policy, retrace_steering
from vla_rl.rollout.retrace_gate import retrace_gate
from vla_rl.steer.critic import LoadedCritic, RobotCritic
from vla_rl.steer.guided import GuidedConfig, guided_engine
from vla_rl.steer.steering import Steering, SteeringConfig
from vla_rl.types import RobotSpec

CRITIC = "critic.safetensors"
PARTS = ("policy", "steering", "gate")
_PATIENCE_S = 60.0  # a critic has all the time it wants
Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class RetraceConfig:
    """What is run again, and with what.

    Attributes:
        parts: some of PARTS.
        policy, critic: other folders than those that the graph had; "" takes those.
        device: where they compute; "" as the graph did.
    """

    parts: tuple[str, ...] = PARTS
    policy: str = ""
    critic: str = ""
    device: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a part that does not exist."""
        if unknown := sorted(set(self.parts) - set(PARTS)):
            raise ValueError(f"unknown part '{unknown[0]}'; there are: {', '.join(PARTS)}")


class Retracer:
    """Runs episodes of one session again; what is loaded for one is kept for the next.

    Args:
        spec: the robot.
        config: what is run, and with what.
        check_policy, check_critic: give the folder of a name, or raise ValueError.
    """

    def __init__(
        self,
        spec: RobotSpec,
        config: RetraceConfig,
        check_policy: Callable[[str], str],
        check_critic: Callable[[str], str],
    ) -> None:
        self._spec, self._config = spec, config
        self._check = {"policy": check_policy, "critic": check_critic}
        self._engines: dict[str, Engine] = {}
        self._critics: dict[str, RobotCritic] = {}

    def __call__(self, entry: EpisodeEntry) -> dict[str, Part]:
        """What differs in an episode, by part.

        Raises:
            ValueError: a checkpoint is missing, or it is not the one that was recorded.
            DamagedEpisodeError: the file is not whole.
        """
        tape = Tape.load(entry.path, self._spec.names)
        graph, parts = tape.about.get("graph", {}), dict[str, Part]()
        if "policy" in self._config.parts and _needs(graph, "policy", entry):
            parts["policy"] = retrace_policy(tape, self._engine(graph["policy"], tape))
        if "steering" in self._config.parts and _needs(graph, "steering", entry):
            parts["steering"] = self._choices(graph["steering"], tape)
        if "gate" in self._config.parts and _needs(graph, "control", entry):
            parts["gate"] = retrace_gate(tape, self._spec, _control(graph["control"]))
        return parts

    def _engine(self, given: Parameters, tape: Tape) -> Engine:
        import torch

        folder = self._folder("policy", given, "checkpoint", tape)
        guide = self._guide(given, tape)
        key = f"{folder} {guide} {dict(given)}"
        if key not in self._engines:
            torch.set_num_threads(int(given["threads"]))
            config = EngineConfig(
                max(int(given["candidates"]), 1), 0.0, self._config.device or str(given["device"]), str(given["dtype"]),
                int(given["seed"]), PerturbConfig(int(given["draws"]), float(given["spread"])), str(given["layer"]),
                int(given.get("denoising_steps", 0)),
            )  # fmt: skip
            cameras = [name for name in given["cameras"] if name] or [camera.name for camera in self._spec.cameras]
            self._engines = {
                key: guided_engine(folder, self._spec, cameras, config, *guide, trusted=True)
                if guide
                else load_engine(folder, self._spec, cameras, config)
            }
        return self._engines[key]

    def _guide(self, given: Parameters, tape: Tape) -> tuple[str, GuidedConfig] | None:
        """The critic that acted while chunks were drawn, and how."""
        if not given.get("guide"):
            return None
        folder = self._folder("guide", given, "critic", tape)
        return folder, GuidedConfig(str(given["guide"]), float(given["guide_temperature"]))

    def _choices(self, given: Parameters, tape: Tape) -> Part:
        """Every choice again; a critic that foresees knows what control made of the recorded ones."""
        names = {field.name for field in fields(SteeringConfig)} - {"slice", "deadline_s"}
        config = SteeringConfig(**{name: given[name] for name in names if name in given}, deadline_s=_PATIENCE_S)
        critic, foresight = None, None
        if given["critic"] or self._config.critic:
            folder = self._folder("critic", given, "critic", tape)
            if folder not in self._critics:
                device = choose_device(self._config.device or str(given["device"]))
                self._critics = {folder: RobotCritic(LoadedCritic.load(folder, device, trusted=True), self._spec)}
            critic = self._critics[folder]
        if given.get("foresee"):
            player = PlayerConfig(str(given["joining"]), max_age_s=float(given["max_age_s"]))
            window = getattr(critic, "window", 0)
            foresight = AsRecorded(ForesightConfig(player, float(given["delay_s"]), window), tape, self._spec)
        known = looked_at(tape, self._spec, critic.cameras) if critic is not None and critic.cameras else {}
        steering = Steering(config, self._spec.names, critic, foresight)
        try:
            return retrace_steering(tape, self._spec, steering, known, critic is not None, foresight)
        finally:
            steering.close()

    def _folder(self, part: str, given: Parameters, name: str, tape: Tape) -> str:
        """The folder of a checkpoint; one that was not asked for must be the recorded one."""
        flag = "policy" if part == "policy" else "critic"
        file, asked = ("model.safetensors", self._config.policy) if part == "policy" else (CRITIC, self._config.critic)
        if given.get("versions") and not asked and part != "guide":
            raise ValueError(
                f"{part}: weights were pushed while the session ran ({given['versions']}), and which acted when is not "
                f"on record; --{flag} DIR runs one of them, --part gate needs none"
            )
        folder = self._check[flag](asked or str(given[name]))
        before, now = str(tape.about.get("weights", {}).get(part, "")), fingerprint(folder, file)
        if not asked and before and now and before != now:
            raise ValueError(
                f"{part} {folder} has other weights ({now[:12]}) than the recorded one ({before[:12]}); "
                f"--{flag} DIR says where that is, or runs another one"
            )
        return folder


def _needs(graph: Mapping[str, Parameters], node: str, entry: EpisodeEntry) -> bool:
    if node not in graph:
        have = ", ".join(graph) or "none"
        raise ValueError(f"{entry.path.name} does not say how {node} was set up; it knows of: {have}")
    return True


def _control(given: Parameters) -> ControlConfig:
    own = {field.name: given[field.name] for field in fields(ControlConfig) if field.name in given}
    return ControlConfig(**own | {"simulated_time": bool(given["lockstep"])})
