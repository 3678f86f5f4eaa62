"""`vla-rl doctor`: what a machine lacks, and how to mend it."""

import sys

import pytest

from vla_rl.cli import main
from vla_rl.commands import doctor


def test_the_doctor_finds_every_rclpy_on_the_path_once(tmp_path):
    folders = [tmp_path / name for name in ("apt", "wheels", "neither")]
    for folder in folders[:2]:
        (folder / "rclpy").mkdir(parents=True)
        (folder / "rclpy" / "__init__.py").touch()
    (tmp_path / "link").symlink_to(folders[0])
    path = [str(f) for f in (*folders, tmp_path / "link", folders[0])]
    assert doctor.ros_copies(path) == [str(folders[0]), str(folders[1])]


def test_two_rclpys_fail_the_doctor_who_says_which(tmp_path, monkeypatch):
    for name in ("apt", "wheels"):
        (tmp_path / name / "rclpy").mkdir(parents=True)
        (tmp_path / name / "rclpy" / "__init__.py").touch()
    (tmp_path / "wheels" / "ros_rclpy-9.1.2.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "apt"), str(tmp_path / "wheels")])
    finding = doctor.check_ros_copies()
    assert finding.state == doctor.FAIL
    assert f"{tmp_path}/apt and {tmp_path}/wheels" in finding.found
    assert f"pip uninstall ros-rclpy ros-common-interfaces to keep {tmp_path}/apt, or open a shell" in finding.mend
    assert finding.mend.endswith(f"to keep {tmp_path}/wheels")


@pytest.mark.parametrize(
    ("domain", "state"), [("", "ok"), ("7", "ok"), ("150", "warn"), ("233", "FAIL"), ("a", "FAIL")]
)
def test_the_doctor_knows_which_ros_domains_there_are(monkeypatch, domain, state):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    assert doctor.check_ros_domain().state == state


def test_the_doctor_really_renders_and_says_what_to_install_where_it_cannot(monkeypatch):
    assert doctor.check_rendering().state == doctor.OK
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    finding = doctor.check_rendering()
    assert finding.state == doctor.FAIL
    assert "libegl1" in finding.mend


def test_the_doctors_report_is_a_line_a_part_and_its_status_says_whether_it_works(monkeypatch, capsys):
    fine = doctor.Finding("disk", doctor.OK, "room")
    broken = doctor.Finding("dds", doctor.FAIL, "silence", "unmute it")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: fine, lambda: broken))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == ["ok    disk      room", "FAIL  dds       silence; unmute it"]
    monkeypatch.setattr(doctor, "CHECKS", (lambda: fine,))
    assert main(["doctor"]) == 0
