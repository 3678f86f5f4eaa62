"""The package as pip and colcon install it: everything that runs or is read at run time is there."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vla_rl.ros.bringup.options import sim_graph

ROOT = Path(__file__).parents[1]
EXECUTABLES = {p.executable for apart in ("true", "false") for p in sim_graph({"apart": apart}).processes}
EXECUTABLES |= {"lifecycle_manager", "vla-rl"}
FROM_ROS = ("rclpy", "launch", "launch_ros", "ament_index_python", "std_srvs")


def copy_sources(folder):
    """What git would give somebody who clones this tree."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).exists() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module", params=[(), ("--symlink-install",)], ids=["build", "symlink-install"])
def workspace(request, tmp_path_factory):
    """A colcon workspace with this package built in it."""
    folder = tmp_path_factory.mktemp("ws")
    copy_sources(folder / "src" / "vla_rl")
    command = [sys.executable, "-m", "colcon", "build", *request.param]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def in_shell(workspace, command):
    """Run a command elsewhere, in a shell that has sourced the workspace."""
    sourced = f". {workspace}/install/setup.sh && exec {command}"
    done = subprocess.run(["bash", "-c", sourced], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_colcon_installs_every_executable_where_ros2_run_looks_for_it(workspace):
    folder = workspace / "install/vla_rl/lib/vla_rl"
    assert {p.name for p in folder.iterdir()} >= EXECUTABLES
    assert all(os.access(folder / name, os.X_OK) for name in EXECUTABLES)
    assert "vla-rl COMMAND" in in_shell(workspace, f"{folder}/vla-rl --help")


def test_colcon_installs_launch_and_parameter_files_and_ros_finds_the_package(workspace):
    code = "from ament_index_python.packages import get_package_share_directory as d; print(d('vla_rl'))"
    share = Path(in_shell(workspace, f'{sys.executable} -c "{code}"'))
    assert share == workspace / "install/vla_rl/share/vla_rl"
    launch_files = {p.name for p in (ROOT / "launch").glob("*.launch.py")}
    assert {p.name for p in (share / "launch").glob("*.launch.py")} == launch_files
    assert (share / "launch/params/sim.yaml").read_bytes() == (ROOT / "launch/params/sim.yaml").read_bytes()
    assert (share / "package.xml").is_file()


def test_colcon_installs_simulation_arms_and_checkpoints(workspace):
    code = (
        "import vla_rl, vla_rl.sim, vla_rl.hardware; from vla_rl import build; from vla_rl.robot import arm_spec; "
        "print(vla_rl.__file__, arm_spec('so101').name, build.check_policy('tabletop'))"
    )
    file, arm, policy = in_shell(workspace, f'{sys.executable} -c "{code}"').split()
    assert Path(file).is_relative_to(workspace)
    assert arm == "so101"
    assert (Path(policy) / "model.safetensors").is_file()
    assert Path(policy).is_relative_to(workspace)


def test_a_wheel_carries_the_same_and_puts_every_executable_on_the_path(tmp_path):
    source = copy_sources(tmp_path / "src")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        files = set(wheel.namelist())
        scripts = wheel.read(next(f for f in files if f.endswith("entry_points.txt"))).decode()
    wanted = ["sim/world.py", "hardware/arms/so101.yaml", "policy/checkpoints/tabletop/model.safetensors"]
    wanted += ["ros/control_node.py", "rollout/report.html"]
    wanted += [f"hil/console/page/{name}" for name in ("index.html", "console.css", "main.js", "icon.svg")]
    assert files >= {f"vla_rl/{name}" for name in wanted}
    assert all(f"{name} = vla_rl." in scripts for name in EXECUTABLES)
    assert any(f.endswith("share/vla_rl/launch/sim.launch.py") for f in files)


@pytest.mark.parametrize("name", sorted(EXECUTABLES - {"vla-rl"}))
def test_every_executable_is_a_main_of_its_own_node(name):
    (entry,) = (e for e in entry_points(group="console_scripts") if e.name == name)
    assert entry.value == f"vla_rl.ros.start:{name}"
    assert entry.load().args == (name,)
    main = import_module(f"vla_rl.ros.{name}").main
    assert main.__module__ == f"vla_rl.ros.{name}", "another module's main does not know this node"
    assert not signature(main).parameters


def test_the_command_is_where_the_virtual_environment_has_its_commands():
    assert os.access(Path(sys.executable).parent / "vla-rl", os.X_OK)


def test_package_xml_names_every_ros_package_that_is_imported():
    used = set()
    for path in [*ROOT.glob("vla_rl/**/*.py"), *ROOT.glob("launch/*.py"), *ROOT.glob("hardware/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            used |= {module.split(".")[0] for module in modules}
    ros = {name for name in used if name in FROM_ROS or name.endswith(("_msgs", "_interfaces"))}
    named = {e.text for e in ElementTree.parse(ROOT / "package.xml").getroot().findall("exec_depend")}
    assert ros <= named, f"package.xml lacks {ros - named}"
