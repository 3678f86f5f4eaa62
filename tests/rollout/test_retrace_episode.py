"""An episode's own first message says how policy and steering were set up: run so again, they do the same again."""

import json
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from std_msgs.msg import String

from vla_rl import build
from vla_rl.execute.foresight import Foresight, ForesightConfig
from vla_rl.execute.player import PlayerConfig
from vla_rl.observe.streams import Streams, StreamsConfig
from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.engine import EngineConfig, load_engine
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import compute_stats
from vla_rl.record import cdr
from vla_rl.record.mcap_file import Entry, EpisodeWriter, read
from vla_rl.robot import arm_spec
from vla_rl.rollout.retrace_episode import RetraceConfig, Retracer
from vla_rl.ros import messages
from vla_rl.ros.context import context
from vla_rl.ros.steering_node import _values
from vla_rl.steer.critic import LoadedCritic, RobotCritic
from vla_rl.steer.guided import GuidedConfig, guided_engine
from vla_rl.steer.steering import Steering, SteeringConfig
from vla_rl.types import CameraSpec

SPEC, CAMERAS, WORDS = arm_spec("so101"), ("front", "wrist"), "lift the red cube"
START, PERIOD, SETS = 1_700_000_000 * 10**9, round(1e9 / 30), 9
POLICY = {
    "candidates": 3, "device": "cpu", "dtype": "float32", "seed": 3, "draws": 0, "spread": 0.0, "layer": "pooled",
    "threads": 1, "cameras": list(CAMERAS), "image_transport": "raw", "guide": "",
}  # fmt: skip
STEERING = {
    "critic": "", "selector": "argmax", "seed": 1, "foresee": False, "joining": "temporal", "delay_s": 0.07,
    "max_age_s": 0.5, "device": "cpu",
}  # fmt: skip


def two_frames(folder):
    """A policy of ours that looks at two observations."""
    torch.manual_seed(0)
    inputs = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)) for name in CAMERAS}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (6,))
    config = VLAConfig(
        input_features=inputs, output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))}, device="cpu",
        fps=30, action_spec=SPEC.lerobot_action_spec.to_dict(), state_names=list(SPEC.lerobot_action_spec.names),
        horizon=8, n_action_steps=4, width=32, inference_steps=3, n_obs_steps=2,
    )  # fmt: skip
    states, actions = torch.randn(50, 6), torch.randn(50, 8, 6) * 0.1
    policy = VLAPolicy(
        config, stats=compute_stats(states, actions, torch.zeros(50, 8, dtype=torch.bool), config.relative_mask)
    )
    with torch.no_grad():
        for parameter in policy.parameters():  # a fresh head gives zeros, whatever it sees
            parameter.add_(torch.randn_like(parameter) * 0.05)
    policy.save_pretrained(folder)
    return str(folder)


def plain(value):
    """What a node would send, as the recorder's own library has it; ROS's own serialisation leaves room behind."""
    if hasattr(value, "get_fields_and_field_types"):
        fields = {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
        return cdr.make(kind_of(value), **fields)
    if isinstance(value, array):
        return np.array(value)
    return [plain(each) for each in value] if isinstance(value, list) else value


def kind_of(message):
    return f"{type(message).__module__.split('.')[0]}/msg/{type(message).__name__}"


class Tape:
    """What a recorder would have of a policy and a steering that run on made-up sensors."""

    def __init__(self, path, graph):
        self.path, self._file = path, open(path, "xb", buffering=0)  # noqa: SIM115
        self._writer, self._log = EpisodeWriter(self._file), START
        self.put("session", String(data=json.dumps({"graph": graph, "weights": {}})))
        self.put("instruction", String(data=WORDS))

    def put(self, topic, message):
        self._log += 1000
        kind = kind_of(message)
        self._writer.write(Entry(topic, kind, cdr.encode(plain(message), kind), self._log))

    def close(self):
        self._writer.finish()
        self._file.close()
        return SimpleNamespace(path=self.path)


def record(path, graph, engine, steering=None):
    """Play; every fourth period the policy draws, and the steering chooses."""
    tape, rng = Tape(path, graph), np.random.default_rng(0)
    streams = Streams(SPEC, [CameraSpec(n, 96, 96) for n in CAMERAS], StreamsConfig(100.0, 1.0, engine.frames))
    streams.instruct(WORDS)
    for period in range(4 * SETS):
        stamp, joints = START + period * PERIOD, 0.2 * np.sin(0.1 * period + np.arange(6))
        streams.put_joints(SPEC.names, joints, stamp, period * PERIOD)
        tape.put("joint_states", messages.joint_state(SPEC.names, joints, stamp))
        for number, camera in enumerate(CAMERAS):
            picture, taken = rng.integers(0, 256, (96, 96, 3), np.uint8), stamp - number * 7_000_000
            streams.put_image(camera, picture, taken, period * PERIOD)
            tape.put(f"camera/{camera}/image_raw", messages.image(picture, taken, camera))
        if period % 4 == 0:
            history = streams.history(period * PERIOD)
            found = engine.candidates(history, k=POLICY["candidates"])
            tape.put("policy/context", context(found, history))
            tape.put("policy/candidates", messages.candidates(found))
            if steering is not None:
                choose(tape, steering, found)
    return tape.close()


def choose(tape, steering, found):
    decision = steering.decide(found)
    tape.put("steering/values", _values(decision))
    tape.put("steering/chunk", messages.chunk(decision.chunk, str(decision.index)))


def again(entry, *parts):
    retrace = Retracer(SPEC, RetraceConfig(parts), build.check_policy, build.check_critic)
    return retrace(entry)


def test_a_policy_that_looks_at_two_observations_draws_the_same_candidates_again(tmp_path):
    folder = two_frames(tmp_path / "policy")
    engine = load_engine(folder, SPEC, CAMERAS, EngineConfig(3, 0.0, "cpu", seed=3))
    assert engine.frames == 2
    entry = record(tmp_path / "0.mcap", {"policy": {**POLICY, "checkpoint": folder}}, engine)
    part = again(entry, "policy")["policy"]
    assert (part.compared, part.equal, dict(part.skipped)) == (SETS, SETS, {})


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """An episode of the shipped policy, guided and steered with foresight by the shipped critic; its graph."""
    policy, critic = build.check_policy("tabletop"), build.check_critic("tabletop")
    graph = {
        "policy": {**POLICY, "checkpoint": policy, "guide": "fk", "guide_temperature": 0.05, "critic": critic},
        "steering": {**STEERING, "critic": critic, "foresee": True},
    }
    config, how = EngineConfig(3, 0.0, "cpu", seed=3), GuidedConfig("fk", 0.05)
    engine = guided_engine(policy, SPEC, CAMERAS, config, critic, how, trusted=True)
    judge = RobotCritic(LoadedCritic.load(critic, "cpu", trusted=True), SPEC)
    foresight = Foresight(ForesightConfig(PlayerConfig("temporal"), 0.07, judge.window))
    steering = Steering(SteeringConfig(selector="argmax", seed=1, deadline_s=60.0), SPEC.names, judge, foresight)
    folder = tmp_path_factory.mktemp("guided")
    entry = record(folder / "0.mcap", graph, engine, steering)
    steering.close()
    return entry, graph


def test_what_a_guided_policy_drew_and_a_foreseeing_critic_chose_comes_out_again(guided):
    found = again(guided[0], "policy", "steering")
    for part in found.values():
        assert (part.compared, part.equal, part.differences, dict(part.skipped)) == (SETS, SETS, [], {})


@pytest.mark.parametrize(("part", "change"), [("policy", {"guide": ""}), ("steering", {"foresee": False})])
def test_it_was_the_guidance_and_the_foresight_that_made_it_so(guided, tmp_path, part, change):
    entry, graph = guided
    other = {**graph, part: {**graph[part], **change}}
    changed = tmp_path / "0.mcap"
    with open(changed, "xb", buffering=0) as file:
        writer = EpisodeWriter(file)
        about = cdr.string(json.dumps({"graph": other, "weights": {}}))
        for each in read(entry.path):
            data = about if each.topic == "session" else each.data
            writer.write(Entry(each.topic, each.kind, data, each.log_ns))
        writer.finish()
    found = again(SimpleNamespace(path=changed), part)[part]
    assert found.equal < found.compared


def test_weights_that_were_pushed_meanwhile_are_refused_by_name(tmp_path):
    graph = {"policy": {**POLICY, "checkpoint": "tabletop", "versions": "outputs/versions/policy"}}
    entry = Tape(tmp_path / "0.mcap", graph).close()
    with pytest.raises(ValueError, match=r"pushed while the session ran .outputs/versions/policy.*--policy DIR"):
        again(entry, "policy")
