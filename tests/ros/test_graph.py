"""What a user asks for, as nodes and parameters; nothing is started here."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from vla_rl.ros.bringup import names
from vla_rl.ros.bringup.options import SIM_OPTIONS, sim_graph

ROOT = Path(__file__).parents[2]
NODES = ("robot", "control", "steering", "policy")


def parameters(graph):
    """Parameters by node, as the nodes will read them."""
    return {section: value["ros__parameters"] for section, value in yaml.safe_load(graph.parameters()).items()}


def write(folder, text):
    path = folder / "params.yaml"
    path.write_text(text)
    return str(path)


def test_describing_a_graph_loads_neither_ros_nor_anything_heavy():
    heavy = ["rclpy", "torch", "mujoco", "gymnasium", "lerobot", "launch"]
    loads = "import sys; from vla_rl.ros.bringup import options; options.sim_graph()"
    code = f"{loads}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_control_and_robot_live_alone_and_the_policy_with_its_steering():
    together = [(p.executable, [n.name for n in p.nodes]) for p in sim_graph().processes]
    assert ("control_node", ["control"]) in together
    assert ("robot_node", ["robot"]) in together
    assert ("policy_steering", ["policy", "steering"]) in together
    apart = {p.executable for p in sim_graph({"apart": "true"}).processes}
    assert apart == {"robot_node", "policy_node", "steering_node", "control_node"}


def test_nothing_moves_before_what_it_moves_is_ready():
    after = {n.name: n.after for n in sim_graph().nodes}
    assert after == {"robot": (), "control": ("robot",), "steering": ("control",), "policy": ("steering",)}


def test_every_parameter_that_an_option_sets_is_declared_by_its_node():
    from vla_rl.ros.control_node import ControlNode
    from vla_rl.ros.policy_node import PolicyNode
    from vla_rl.ros.robot_node import RobotNode
    from vla_rl.ros.steering_node import SteeringNode

    kinds = {"robot": RobotNode, "control": ControlNode, "steering": SteeringNode, "policy": PolicyNode}
    asked = {"time": "lockstep", "compressed": "true"}
    for node in sim_graph(asked).nodes:
        assert node.parameters.keys() <= {f.name for f in fields(kinds[node.name].kind)}, node.name


def test_the_shipped_parameter_file_says_what_holds_without_it():
    file = str(ROOT / "launch/params/sim.yaml")
    assert parameters(sim_graph({"params_file": file, "namespace": "left"})) == parameters(
        sim_graph({"namespace": "left"})
    )
    written = {section.removeprefix("/**/"): p for section, p in yaml.safe_load(Path(file).read_text()).items()}
    assert {n: p["ros__parameters"] for n, p in written.items()} == {
        n.name: dict(n.parameters) for n in sim_graph().nodes
    }


def test_by_name_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    file = write(tmp_path, "/**/robot: {ros__parameters: {task: push, seed: 3, rate: 20.0}}")
    asked = {"params_file": file, "seed": "9"}
    robot = parameters(sim_graph(asked))["/robot"]
    assert (robot["task"], robot["seed"], robot["rate"], robot["randomisation"]) == ("push", 9, 20.0, "train")
    assert parameters(sim_graph(asked, ["robot.seed=4"]))["/robot"]["seed"] == 4


@pytest.mark.parametrize("section", ["robot", "/robot", "/**/robot", "/left/robot", "left/robot", "/**"])
def test_a_section_is_found_however_it_names_its_node(tmp_path, section):
    file = write(tmp_path, f"{section}: {{ros__parameters: {{task: push}}}}")
    assert parameters(sim_graph({"params_file": file, "namespace": "left"}))["/left/robot"]["task"] == "push"


def test_a_section_inside_its_namespace_is_found_and_its_node_wins_over_all(tmp_path):
    file = write(tmp_path, "left: {robot: {ros__parameters: {task: push}}}\n/**: {ros__parameters: {task: stack}}")
    assert parameters(sim_graph({"params_file": file, "namespace": "left"}))["/left/robot"]["task"] == "push"


def test_parameters_keep_their_types():
    rules = [
        "control.max_open_loop_s=0.4",
        "policy.publish_context=false",
        "robot.cameras=[wrist]",
        "policy.instruction=",
    ]
    found = parameters(sim_graph({}, rules))
    assert found["/control"]["max_open_loop_s"] == 0.4
    assert found["/policy"]["publish_context"] is False
    assert found["/robot"]["cameras"] == ["wrist"]
    assert found["/policy"]["instruction"] == ""


def test_the_robot_and_the_policy_agree_on_the_pictures():
    found = parameters(sim_graph({"compressed": "true", "cameras": "wrist", "image_size": "128"}))
    assert (found["/robot"]["compressed"], found["/policy"]["image_transport"]) == (True, "compressed")
    assert found["/robot"]["cameras"] == found["/policy"]["cameras"] == ["wrist"]
    assert found["/robot"]["image_width"] == found["/robot"]["image_height"] == 128


def test_whoever_looks_takes_pictures_as_large_as_the_robot_sends():
    for size in (64, 512, 1024):
        found = parameters(sim_graph({"image_size": str(size)}))
        for node in ("/policy", "/steering"):
            for side in ("image_width", "image_height"):
                assert found[node][side] >= found["/robot"][side] == size


def test_a_seed_is_that_of_the_scene_and_of_everything_that_is_drawn():
    found = parameters(sim_graph({"seed": "7"}))
    assert [found[node]["seed"] for node in ("/robot", "/policy", "/steering")] == [7, 7, 7]


def test_simulated_time_is_told_to_everybody():
    for time, waits in (("faster", False), ("lockstep", True)):
        found = parameters(sim_graph({"time": time}))
        assert found["/robot"]["time"] == time
        assert found["/control"]["lockstep"]
        assert (found["/control"]["lockstep_replan"] > 0) == waits
        assert found["/policy"]["simulated_time"]
        assert found["/steering"]["simulated_time"]


def test_a_policys_folder_is_the_same_folder_for_a_node_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parameters(sim_graph({"policy": "mine"}))["/policy"]["checkpoint"] == str(tmp_path / "mine")


def test_namespace_and_remappings_reach_every_process():
    graph = sim_graph({"namespace": "/left/"}, remappings=["joint_states:=arm/joint_states"])
    for process in graph.processes:
        command = " ".join(graph.command(process, "/p.yaml"))
        assert "-r __ns:=/left -r joint_states:=arm/joint_states --params-file /p.yaml" in command
    assert graph.full_name("control") == "/left/control"


def test_the_dds_profile_can_be_turned_off_or_replaced(tmp_path):
    (tmp_path / "mine.xml").touch()
    assert sim_graph().environment == {}
    assert sim_graph({"dds_profile": "off"}).environment == {"VLA_RL_DDS_PROFILE": "off"}
    assert str(tmp_path / "mine.xml") in sim_graph({"dds_profile": str(tmp_path / "mine.xml")}).environment.values()


REFUSED = {
    "selector": ({"selector": "best"}, "unknown selector 'best'; there are: first, random, medoid"),
    "joining": ({"joining": "glue"}, "unknown joining 'glue'; there are: latest, "),
    "time": ({"time": "slow"}, "unknown time 'slow'; there are: real, faster, lockstep"),
    "seed": ({"seed": "one"}, "seed 'one': it must be a whole number"),
    "flag": ({"apart": "maybe"}, "apart 'maybe': it must be true or false"),
    "option": ({"speed": "2"}, "unknown option 'speed'; there are: task, seed"),
    "namespace": ({"namespace": "my arm"}, "namespace 'my arm' is no ROS name"),
    "profile": ({"dds_profile": "fast"}, "dds_profile 'fast' is neither on, off nor a file"),
    "no file": ({"params_file": "/no/such.yaml"}, "parameter file /no/such.yaml cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_option_is_refused_by_name_with_the_alternatives(name):
    asked, said = REFUSED[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        sim_graph(asked)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


FILES = {
    "polcy: {ros__parameters: {rate: 1.0}}": "no node 'polcy'; there are: robot, control, steering, policy",
    "policy: {rate: 1.0}": "'policy/rate' must hold NODE: {ros__parameters: {NAME: VALUE}}",
    "policy: {ros__parameters: [1]}": "the parameters of 'policy' must read NAME: VALUE",
    "- a\n- b": "must hold NODE",
    "": "must hold NODE",
    "a: [": "is not YAML",
    "a: !!python/object/apply:os.system ['true']": "is not YAML",
}


@pytest.mark.parametrize("text", FILES)
def test_a_wrong_parameter_file_is_refused(tmp_path, text):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        sim_graph({"params_file": write(tmp_path, text)})
    assert FILES[text] in str(error.value)


RULES = {
    "control.joining": "must read NODE.NAME=VALUE",
    "joining=blend": "must read NODE.NAME=VALUE",
    "cntrol.joining=blend": "no node 'cntrol'; there are: robot, control, steering, policy",
    "control.joining=[": "is not YAML",
}


@pytest.mark.parametrize("rule", RULES)
def test_a_wrong_parameter_is_refused(rule):
    with pytest.raises(ValueError, match="parameter '") as error:
        sim_graph({}, [rule])
    assert RULES[rule] in str(error.value)


REMAPPINGS = {
    "joint_states:=": "remaps 'joint_states' to nothing",
    "joint_states": "must read FROM:=TO",
    ":=x": "must read FROM:=TO",
    "joint_states:=my arm": "'my arm' is no ROS name",
    "joint_stats:=x": "the graph has no 'joint_stats'; there are: joint_states, joint_commands",
}


@pytest.mark.parametrize("rule", REMAPPINGS)
def test_a_wrong_remapping_is_refused(rule):
    with pytest.raises(ValueError, match="remapping '") as error:
        sim_graph(remappings=[rule])
    assert REMAPPINGS[rule] in str(error.value)


def test_every_name_that_can_be_remapped_may_be():
    rules = [f"{name}:=x" for name in (*names.TOPICS, *names.SERVICES, "camera/front/image_raw")]
    assert len(sim_graph(remappings=rules).remappings) == len(rules)


@pytest.mark.parametrize("text", ["-1", "233", "1e9", "one", " 7", "4294967296"])
def test_a_ros_domain_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match=r"ROS_DOMAIN_ID is '.*'; it must be a whole number from 0 to 232"):
        names.check_domain(text)


def test_no_domain_is_domain_zero():
    assert [names.check_domain(text) for text in (None, "", "0", "232")] == [0, 0, 0, 232]


@pytest.mark.parametrize("option", SIM_OPTIONS, ids=lambda o: o.name)
def test_every_option_explains_itself_and_takes_its_own_default(option):
    assert len(option.help) > 10
    if option.default:
        option.read(option.default)


def test_the_table_of_topics_in_the_docs_is_that_of_the_names_that_can_be_remapped():
    table = (ROOT / "docs/ros.md").read_text().partition("## Topics")[2].partition("## Services")[0]
    told = {topic.lstrip("/") for topic in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)}
    assert {topic for topic in told if not topic.startswith("camera/")} == set(names.TOPICS)
