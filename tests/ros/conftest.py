"""Real nodes over real DDS: loopback only, and a ROS domain for each pytest worker."""

import pytest
from ros_domain import use_own_domain

use_own_domain()

from ros_nodes import Peer, Process  # noqa: E402

from vla_rl.ros import dds  # noqa: E402

dds.use_profile()


@pytest.fixture(scope="module")
def start():
    """Starts a node in a process of its own; at the end each must go by itself."""
    running = []

    def start_node(module, **parameters):
        running.append(Process(module, **parameters))
        return running[-1]

    yield start_node
    for process in reversed(running):
        process.stop()


@pytest.fixture(scope="module")
def peer():
    """A node of the test's own."""
    client = Peer("peer")
    yield client
    client.close()


@pytest.fixture(autouse=True)
def forget_what_was_heard():
    """Subscriptions end with their test: a listener that keeps all of them falls behind."""
    before = {id(client): set(client.node.subscriptions) for client in Peer.made}
    yield
    for client in Peer.made:
        client.destroy(*set(client.node.subscriptions) - before.get(id(client), set()))
