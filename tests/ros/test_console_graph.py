"""The operator's page over the real hil_node and control_node; the test is their robot, its camera and its policy."""

import socket
import time

import numpy as np
import pytest
from ros_nodes import PATIENCE_S, said_so_far
from sensor_msgs.msg import Image, JointState
from test_control_node import World

from vla_rl.bench.console import chromium
from vla_rl.ros import messages, qos
from vla_rl.types import Source

MOVED = 0.03  # rad
PICTURE = np.full((96, 96, 3), 120, np.uint8)


class Filmed(World):
    """A world with a front camera."""

    def __init__(self, peer):
        self._pictures = peer.node.create_publisher(Image, "camera/front/image_raw", qos.OFFER)
        super().__init__(peer)

    def tell(self, stamp):
        super().tell(stamp)
        self._pictures.publish(messages.image(PICTURE, stamp, "front"))


@pytest.fixture(scope="module")
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def graph(start, peer, port):
    nodes = {"control": start("control_node"), "hil": start("hil_node", port=port)}
    for name, node in nodes.items():
        assert peer.change(name, "configure"), node.log
        assert peer.change(name, "activate"), node.log
    world = Filmed(peer)
    world.begin()
    yield world
    world.fall_silent()


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser, graph, port):
    opened = browser.new_page(viewport={"width": 1024, "height": 768})
    opened.set_default_timeout(1000 * PATIENCE_S)
    opened.goto(f"http://127.0.0.1:{port}/")
    opened.wait_for_selector("body[data-mode]:not([data-mode=none])")
    yield opened
    opened.close()


def acting(world, source):
    return lambda: world.steps and world.last["source"] == source


def take(graph, page, wanted):
    """Press Space until the arm has changed hands: on a loaded machine a page may be lost at any time."""
    end = time.monotonic() + PATIENCE_S
    while not acting(graph, wanted)():
        assert time.monotonic() < end, f"it never became {wanted!r}: {said_so_far()}"
        page.keyboard.press("Space")
        since = time.monotonic()
        graph.live(lambda since=since: acting(graph, wanted)() or time.monotonic() > since + 2.0)


def drive(graph, page, key):
    """Hold a key until the arm has moved."""
    before, end = graph.joints.copy(), time.monotonic() + PATIENCE_S
    while np.abs(graph.joints - before).max() < MOVED:
        assert time.monotonic() < end, f"it never moved: {said_so_far()}"
        take(graph, page, Source.HUMAN)
        page.keyboard.down(key)
        graph.live(lambda: np.abs(graph.joints - before).max() > MOVED or not acting(graph, Source.HUMAN)())
        page.keyboard.up(key)


def test_a_correction_by_keys_moves_the_arm_and_is_marked(graph, page, peer):
    told = peer.hear(JointState, "episode/status", qos.LATCHED)
    graph.live(acting(graph, Source.POLICY))
    page.keyboard.press("KeyN")
    peer.until(lambda: told and messages.vector_of(told[-1])["recording"] == 1)
    drive(graph, page, "KeyR")
    take(graph, page, Source.POLICY)
    page.keyboard.press("Enter")
    peer.until(lambda: messages.vector_of(told[-1])["recording"] == 0)
    last = messages.vector_of(told[-1])
    assert last["outcome"] == 1
    assert last["takeovers"] >= 1
    assert last["human_s"] > 0


def test_the_page_shows_the_camera_the_chunk_and_the_instruction_goes_out(graph, page, peer):
    graph.live(lambda: int(page.locator("[data-camera=front]").get_attribute("data-frames") or 0) > 3)
    painted = "c => !c.hidden && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0)"
    graph.live(lambda: page.locator("#front canvas").nth(1).evaluate(painted))
    page.fill("#instruction", "stack the cubes")
    page.click("#instruct button")
    graph.live(lambda: page.evaluate("document.getElementById('instruction').value") == "stack the cubes")


def test_closing_the_page_while_correcting_holds_the_arm_and_never_gives_it_back_to_the_policy(graph, page):
    take(graph, page, Source.HUMAN)
    page.close()
    graph.live(acting(graph, Source.HOLD))
    since = len(graph.steps)
    graph.live(lambda: len(graph.steps) > since + 30)
    assert {messages.vector_of(m)["source"] for m in graph.steps[since:]} == {Source.HOLD}


def test_another_page_can_take_the_arm_that_a_lost_one_left_and_stop_it(graph, page):
    take(graph, page, Source.HUMAN)
    page.click("#stop")
    page.wait_for_selector("body[data-mode=STOPPED]")
    graph.live(acting(graph, Source.HOLD))
    page.click("#pause")
    page.wait_for_selector("body[data-mode=PAUSED]")
    page.click("#pause")
    graph.live(acting(graph, Source.POLICY))
