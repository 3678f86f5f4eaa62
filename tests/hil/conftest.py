"""A browser, and a page of a console over a desk that is fed."""

import pytest
from desk_feeder import PATIENCE, Feeder

from vla_rl.bench.console import chromium
from vla_rl.hil.console import serve
from vla_rl.hil.console.link import LAG_S
from vla_rl.robot import arm_spec


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def feeder():
    with Feeder() as feeding:
        yield feeding


@pytest.fixture
def console(feeder):
    served = serve(feeder.desk, port=0, spec=arm_spec("so101"), lag_s=PATIENCE * LAG_S)
    yield served
    served.close()


@pytest.fixture
def open_page(browser, console):
    """Opens pages; whatever a page complains of fails the test."""
    opened, complaints = [], []

    def open_one(mode="AUTONOMOUS"):
        context = browser.new_context(viewport={"width": 1024, "height": 768})
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
        page.goto(console.url)
        page.wait_for_selector(f"body[data-mode='{mode}']")
        opened.append(context)
        return page

    yield open_one
    for context in opened:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page):
    return open_page()
