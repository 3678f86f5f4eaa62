import re
from html.parser import HTMLParser

import av
import numpy as np
import pytest

from vla_rl.rollout import film, report
from vla_rl.rollout.evaluate import VIDEOS, compare, film_name, summarise

HOSTILE = 'pick "up" </figcaption><script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{ --> {{ 7 * 7 }}'


def episode(seed, success, task="lift", **changes):
    record = {
        "task": task, "seed": seed, "choice": 0, "variant": 0, "instruction": HOSTILE, "target": HOSTILE,
        "touched": HOSTILE if success else "", "outcome": "success" if success else "failure", "steps": 9,
        "termination": "time_limit", "cycle_time_s": 2.0 if success else None, "invalid": "", "success": success,
    }  # fmt: skip
    return {**record, **changes}


@pytest.fixture
def page(tmp_path):
    records = [episode(i, i % 3 > 0, task) for task in ("lift", "push") for i in range(4)]
    result = {**summarise(records), "policy": HOSTILE, "selector": "first"}
    result["compare"] = compare(result, result)
    frames = np.random.default_rng(0).integers(0, 255, (12, 24, 24, 3), np.uint8)
    film.write(tmp_path / VIDEOS / film_name(records[0]), frames, 30)
    report.write(tmp_path / "report.html", result, "vla-rl eval --policy <x>")
    return (tmp_path / "report.html").read_text()


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.sources, self.handlers = [], [], []

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        for name, value in attributes:
            if name in ("src", "href"):
                self.sources.append(value)
            if name.startswith("on"):
                self.handlers.append(name)


def test_hostile_instructions_stay_text(page):
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.found
    assert not tags.handlers
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert "49" not in re.findall(r"\{\{.*?\}\}|--&gt; (\S+)", page)


def test_the_page_needs_nothing_but_itself(page):
    tags = Tags()
    tags.feed(page)
    assert tags.sources
    assert all(source.startswith("data:") for source in tags.sources)
    assert "url(" not in page


def test_figures_of_every_task_and_the_comparison_are_there(page):
    assert "4 of 8" in page
    assert page.count("<td>lift</td>") >= 2
    assert "McNemar" in page


def test_a_report_of_failures_alone_can_be_written(tmp_path):
    report.write(tmp_path / "report.html", {**summarise([episode(0, False, target="")]), "policy": "x"})
    assert "0 of 1" in (tmp_path / "report.html").read_text()


def test_a_film_is_h264_that_browsers_play_and_shows_the_frames(tmp_path):
    ramp = np.linspace(0, 250, 10, dtype=np.uint8)
    frames = np.broadcast_to(ramp[:, None, None, None], (10, 33, 25, 3))
    film.write(tmp_path / "a.mp4", frames, 30)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 30)
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [f.shape for f in shown] == [(66, 50, 3)] * 10
    assert [f.mean() for f in shown] == pytest.approx(ramp.tolist(), abs=4)


def test_an_audit_and_what_was_chosen_are_shown(tmp_path):
    note = {"decision": 0, "chosen": 1, "medoid": 0, "success": [[False], [True]], "steps": [[9], [5]], "values": None}
    choices = {"made": 4, "steered": 1, "abstained": {"margin": 2}, "value": 0.5}
    records = [episode(i, True, notes=[note], choices=choices) for i in range(3)]
    page = report.render({**summarise(records), "policy": "mine"}, tmp_path)
    assert "Audit: every candidate executed" in page
    assert "+100.0 (+100.0 to +100.0)" in page, "the first failed, the best did not"
    assert "50% kept to the first" in page
    assert 'alt="choices"' in page
