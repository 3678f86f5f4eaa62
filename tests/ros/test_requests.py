import threading

import pytest

from vla_rl.ros.requests import Requests


def test_work_is_done_by_the_thread_that_serves_and_its_outcome_comes_back():
    requests, done = Requests(60.0), threading.Event()

    def serve():
        while not done.is_set():
            requests.serve()

    server = threading.Thread(target=serve)
    server.start()
    assert requests.ask(lambda: str(threading.get_ident())) == str(server.ident)
    with pytest.raises(ZeroDivisionError):
        requests.ask(lambda: str(1 / 0))
    assert requests.ask(lambda: "still serving") == "still serving"
    done.set()
    server.join()
    assert not requests.serve()


def test_nobody_waits_for_ever():
    with pytest.raises(TimeoutError):
        Requests(0.01).ask(lambda: "never")
