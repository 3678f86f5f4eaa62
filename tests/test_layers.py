"""The arrows of ARCHITECTURE.md, enforced on every import, also those inside functions."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = [
    "types", "arm_file", "robot", "kinematics", "observe", "policy", "value", "steer", "execute",
    "record", "hil", "data", "reward", "learn", "rollout",
]  # fmt: skip
EVERYWHERE = {"build", "build_arm", "cli", "ros", "bench", "commands"}  # may import any room
FORBIDDEN = {
    **{room: {"rclpy", "mujoco"} for room in ("policy", "value", "steer", "data", "reward", "learn")},
    **{room: {"torch", "rclpy"} for room in ("execute", "record", "hil")},
}
ONLY_IN = {
    "rclpy": {"ros", "hardware"},
    "mujoco": {"sim", "kinematics", "bench"},
    "mink": {"sim", "kinematics"},
}
SOURCES = sorted([*ROOT.glob("vla_rl/**/*.py"), *ROOT.glob("sim/**/*.py"), *ROOT.glob("hardware/**/*.py")])


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] in ("sim", "hardware") else (*parts, "")[1]


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports, they show the layer"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def may_import(importer: str, imported: str) -> bool:
    if importer in EVERYWHERE or importer in ("__init__", "__main__") or importer == imported:
        return imported not in ("sim", "hardware") or importer in ("build", "build_arm", "bench", imported)
    if importer in ("sim", "hardware"):
        return imported in ("types", "arm_file", "robot", "kinematics")
    return imported in ROOMS and ROOMS.index(imported) < ROOMS.index(importer)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_its_arrow_allows(path):
    here = room(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "vla_rl" and rest:
            target = rest[0]
            known = target in ROOMS or target in EVERYWHERE or target in ("sim", "hardware")
            assert not known or may_import(here, target), f"{path} imports {name}, which comes after '{here}'"
        assert top not in FORBIDDEN.get(here, set()), f"{path}: '{here}' must not import {top}"
        assert here in ONLY_IN.get(top, {here}), f"{path}: only {ONLY_IN.get(top)} may import {top}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.name != "__main__.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_module_imports(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "vla_rl" else ("vla_rl", *parts)).removesuffix(".__init__")
    importlib.import_module(name)


def test_launch_is_no_package_so_that_ros_launch_is_not_shadowed():
    assert not (ROOT / "launch" / "__init__.py").exists()


@pytest.mark.parametrize("heavy", ["torch", "lerobot", "mujoco", "gymnasium", "rclpy", "transformers", "cv2"])
def test_importing_vla_rl_and_its_command_line_loads_nothing_heavy(heavy):
    code = f"import sys, vla_rl, vla_rl.cli; sys.exit('{heavy}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_learning_rooms_load_no_robot_middleware():
    code = (
        "import sys, pkgutil, importlib, vla_rl\n"
        "for room in ('policy', 'value', 'steer', 'data', 'learn'):\n"
        "    package = importlib.import_module(f'vla_rl.{room}')\n"
        "    for m in pkgutil.iter_modules(package.__path__): importlib.import_module(f'vla_rl.{room}.{m.name}')\n"
        "sys.exit(bool({'rclpy', 'mujoco'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
