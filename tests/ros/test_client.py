"""The client beside a graph: what it gives up while messages come in does not end it."""

import sys
import threading
import time

import pytest
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_rl.ros.measure.client import Client

TOPICS = [f"client/topic_{i}" for i in range(3)]


@pytest.fixture
def chatter(peer):
    """Messages without a pause, and threads that change at every chance."""
    publishers, over = [peer.node.create_publisher(String, topic, 10) for topic in TOPICS], threading.Event()

    def talk():
        while not over.wait(0.001):
            for publisher in publishers:
                publisher.publish(String(data="x"))

    thread, interval = threading.Thread(target=talk), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    yield
    over.set()
    thread.join()
    sys.setswitchinterval(interval)
    peer.destroy(*publishers)


def test_subscriptions_and_clients_end_under_messages_and_the_rest_goes_on(peer, chatter):
    for _ in range(100):
        ears = [peer.listen(String, topic, lambda *_: None, 10) for topic in TOPICS]
        caller = peer.node.create_client(Trigger, "client/nobody")
        time.sleep(0.01)
        peer.destroy(*ears, caller)
    assert peer.failure is None
    heard = peer.hear(String, TOPICS[0])
    peer.until(lambda: len(heard) > 3, "it still hears")


def test_a_client_whose_thread_has_ended_says_so(peer):
    client = Client("doomed")
    client.listen(String, TOPICS[0], lambda *_: 1 / 0, 10)
    publisher = peer.publisher(String, TOPICS[0], 10)
    peer.every(0.05, lambda: publisher.publish(String(data="x")), lambda: client.failure is not None)
    with pytest.raises(RuntimeError, match="'doomed' no longer spins: ZeroDivisionError"):
        client.destroy(client.node.create_publisher(String, TOPICS[1], 10))
    client.close()
    peer.destroy(publisher)
