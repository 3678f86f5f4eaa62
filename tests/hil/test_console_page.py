"""The operator's page in a real browser, over a real desk: what is clicked, typed and lost."""

import numpy as np
import pytest
from desk_feeder import clock
from playwright.sync_api import expect

from vla_rl.types import Outcome

HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"


def mode(page, wanted):
    page.wait_for_selector(f"body[data-mode='{wanted}']")
    expect(page.locator("#mode")).to_have_text(wanted)


def asked(feeder):
    return [name if name != "take_over" else ("take over" if on else "hand back") for name, on in feeder.asked]


def until(page, happened):
    for _ in range(500):
        if happened():
            return
        page.wait_for_timeout(20)
    raise AssertionError("it never happened")


def test_a_whole_correction_session_by_clicks(page, feeder):
    page.click("#start")
    expect(page.locator("#episode")).to_have_attribute("data-state", "recording")
    page.click("#take_over")
    mode(page, "CORRECTING")
    expect(page.locator("#reason")).to_contain_text("you have the arm")
    away = page.locator("#pad [data-code=KeyW]")
    away.hover()
    page.mouse.down()
    until(page, lambda: len(feeder.commands) > 3)
    page.mouse.up()
    page.click("#take_over")
    mode(page, "AUTONOMOUS")
    page.click("#success")
    expect(page.locator("#episode")).to_have_attribute("data-state", "idle")
    page.click("nav [data-view=session]")
    card = page.locator("#episodes .card.success")
    expect(card).to_contain_text("put the red cube on the plate")
    until(page, lambda: card.locator("img").evaluate("picture => picture.naturalWidth > 0"))
    assert asked(feeder) == ["take over", "hand back"]
    assert feeder.marks[-1].outcome is Outcome.SUCCESS
    assert feeder.marks[-1].takeovers == 1
    assert feeder.marks[-1].human_s > 0


def test_a_whole_correction_session_by_keys(page, feeder):
    page.keyboard.press("KeyN")
    expect(page.locator("#episode")).to_have_attribute("data-state", "recording")
    page.keyboard.press("Space")
    mode(page, "CORRECTING")
    page.keyboard.down("KeyR")
    until(page, lambda: len(feeder.commands) > 3)
    page.keyboard.up("KeyR")
    page.keyboard.press("Space")
    mode(page, "AUTONOMOUS")
    page.keyboard.press("KeyP")
    mode(page, "PAUSED")
    page.keyboard.press("KeyP")
    mode(page, "AUTONOMOUS")
    page.keyboard.press("Backspace")
    expect(page.locator("#clock")).to_have_text("failure")
    page.keyboard.press("Delete")
    expect(page.locator("#clock")).to_have_text("discarded")
    page.keyboard.press("KeyN")
    page.click("#rerecord")  # while it goes on: that one is discarded, and the next begins
    expect(page.locator("#ordinal")).to_have_text("● 2")
    assert [(m.ordinal, m.discarded, m.recording) for m in feeder.marks[-2:]] == [(1, True, False), (2, False, True)]
    page.keyboard.press("KeyB")
    expect(page.locator("#ordinal")).to_have_text("● 3")
    assert all(command.twist[2] > 0 for command in feeder.commands)
    assert asked(feeder) == ["take over", "hand back", "pause", "resume"]


def test_stop_latches_until_it_is_reset_which_leaves_the_arm_paused(page, feeder):
    page.keyboard.press("Escape")
    mode(page, "STOPPED")
    expect(page.locator("#take_over")).to_be_disabled()
    page.keyboard.press("Escape")
    page.click("#pause")
    mode(page, "PAUSED")
    assert asked(feeder) == ["stop", "stop", "reset_stop"]


def test_pictures_of_every_camera_keep_coming_and_the_chunk_is_drawn_over_the_front_one(page):
    for camera in ("front", "wrist"):
        picture = page.locator(f"[data-camera={camera}]")
        first = int(picture.get_attribute("data-frames") or 0)
        until(page, lambda p=picture, f=first: int(p.get_attribute("data-frames") or 0) > f + 5)
    painted = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0)"
    assert page.locator("#front canvas").nth(1).evaluate(painted)
    assert page.locator("#chart").evaluate(painted)


def test_a_camera_that_is_clicked_becomes_the_large_one(page):
    page.click("[data-camera=wrist]")
    expect(page.locator("#front figure")).to_have_attribute("data-camera", "wrist")
    expect(page.locator("#side figure")).to_have_attribute("data-camera", "front")


def test_a_page_that_goes_away_while_correcting_loses_the_arm(page, feeder):
    page.click("#take_over")
    mode(page, "CORRECTING")
    assert feeder.desk.driving
    page.close()
    for _ in range(500):
        if not feeder.desk.driving:
            break
        feeder._ending.wait(0.02)
    assert not feeder.desk.driving
    assert asked(feeder) == ["take over"]  # never back to the policy by itself


def test_a_page_that_nobody_sees_while_correcting_holds_until_somebody_takes_over_anew(page, feeder):
    page.click("#take_over")
    mode(page, "CORRECTING")
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    until(page, lambda: not feeder.desk.driving)
    expect(page.locator("#reason")).to_contain_text("lost")
    expect(page.locator("#take_over")).to_contain_text("Take over")
    page.reload()
    mode(page, "CORRECTING")
    page.click("#take_over")
    until(page, lambda: feeder.desk.driving)
    assert asked(feeder) == ["take over", "take over"]


def test_after_a_loss_the_page_can_hand_back_as_well_as_take_over(page, feeder):
    expect(page.locator("#hand_back")).to_be_hidden()
    for give in (lambda: page.click("#hand_back"), lambda: page.keyboard.press("KeyH")):
        page.click("#take_over")
        mode(page, "CORRECTING")
        expect(page.locator("#hand_back")).to_be_hidden()
        page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
        until(page, lambda: feeder.desk.stranded)
        page.evaluate("Object.defineProperty(document, 'hidden', { value: false, configurable: true })")
        until(page, lambda: feeder.desk.page(clock()) is not None)
        page.wait_for_timeout(300)
        expect(page.locator("#take_over")).to_contain_text("Take over")  # the page is back, and does not drive
        expect(page.locator("#hand_back")).to_be_visible()
        give()
        mode(page, "AUTONOMOUS")
    page.keyboard.press("KeyH")  # nobody has the arm: nothing to hand back
    page.keyboard.press("KeyP")
    mode(page, "PAUSED")
    assert asked(feeder) == ["take over", "hand back", "take over", "hand back", "pause"]


def test_a_page_whose_network_queues_what_it_says_does_not_drive(page, feeder):
    page.evaluate(
        """() => {
            const send = WebSocket.prototype.send;
            WebSocket.prototype.send = function (data) { setTimeout(() => send.call(this, data), 4000); };
        }"""
    )
    page.click("#take_over")
    page.keyboard.down("KeyW")
    until(page, lambda: any("s behind: it does not drive" in each.text for each in feeder.desk.view().messages))
    until(page, lambda: feeder.desk.stranded)
    page.wait_for_timeout(1000)
    assert feeder.desk.stranded
    assert feeder.commands == []


def test_a_second_operator_is_refused_and_told_who_has_the_arm(page, feeder):
    feeder.others.append("ana")
    feeder.desk.take_over(True, "ana")
    mode(page, "CORRECTING")
    expect(page.locator("#reason")).to_contain_text("ana has the arm")
    page.click("#take_over")
    expect(page.locator("#say")).to_contain_text("ana has the arm")
    expect(page.locator("#pad")).to_be_hidden()
    page.keyboard.press("KeyW")
    page.keyboard.press("Enter")  # whose answer comes after whatever the key could have done
    expect(page.locator("#say")).to_contain_text("ana has the arm")
    assert feeder.commands == []
    page.click("#stop")  # anybody may
    mode(page, "STOPPED")


def test_texts_of_others_are_shown_and_never_run(page, feeder):
    feeder.desk.say(HOSTILE, 2)
    feeder.desk.call(HOSTILE)
    page.fill("#instruction", HOSTILE)
    page.click("#instruct button")
    until(page, lambda: feeder.instructions[-1] != feeder.instructions[0])
    page.click("#start")
    page.click("#end")
    page.click("nav [data-view=session]")
    page.fill("#noted", HOSTILE)
    page.click("#note button")
    expect(page.locator("#episodes .card .note")).to_contain_text("<script>")
    page.click("nav [data-view=health]")
    expect(page.locator("#messages")).to_contain_text("<script>")
    expect(page.locator("#help")).to_contain_text("<script>")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_a_stream_that_is_ill_is_at_the_top_of_the_list_and_why_a_policy_is_slow_is_said(page, feeder):
    page.click("nav [data-view=health]")
    expect(page.locator("#streams tr").first).to_contain_text("recorder")
    expect(page.locator("#streams tr.ill")).to_have_count(1)
    feeder.reason = "velocity,jerk"
    expect(page.locator("#reason")).to_have_text("limited: velocity, jerk")


def test_a_pasted_text_that_is_too_long_is_refused_and_the_page_says_how_long_it_may_be(page, feeder):
    page.click("#instruction")
    page.keyboard.insert_text("x" * 1_000_000)
    page.keyboard.press("Enter")
    expect(page.locator("#say")).to_contain_text("at most 1000 characters")
    assert len(feeder.instructions) == 1


def test_typing_an_instruction_presses_no_keys_of_the_console_but_escape(page, feeder):
    page.click("#instruction")
    page.fill("#instruction", "")
    page.keyboard.type("pushing new cups up")
    assert asked(feeder) == []
    page.keyboard.press("Enter")
    until(page, lambda: feeder.instructions[-1] == "pushing new cups up")
    page.click("#instruction")
    page.keyboard.press("Escape")
    mode(page, "STOPPED")


@pytest.mark.parametrize(
    "meanwhile",
    [lambda page: page.keyboard.down("Control"), lambda page: page.click("#instruction")],
    ids=["another key", "a text box"],
)
def test_a_key_that_is_let_go_drives_no_more_whatever_was_pressed_or_clicked_meanwhile(page, feeder, meanwhile):
    page.click("#take_over")
    mode(page, "CORRECTING")
    page.keyboard.down("KeyW")
    until(page, lambda: len(feeder.commands) > 3)
    meanwhile(page)
    page.keyboard.up("KeyW")
    page.wait_for_timeout(500)
    told = len(feeder.commands)
    page.wait_for_timeout(500)
    assert len(feeder.commands) == told


def test_help_is_called_in_large_letters_until_somebody_takes_over(page, feeder):
    feeder.desk.call("the value has fallen")
    expect(page.locator("#help")).to_have_text("HELP: the value has fallen")
    assert page.title() == "HELP wanted"
    page.click("#take_over")
    expect(page.locator("#help")).to_be_hidden()


def test_a_gamepad_of_a_layout_that_the_browser_does_not_know_moves_nothing(page, feeder):
    """An xpad's axes without a mapping: two sticks, and triggers that rest at -1."""
    page.evaluate(
        """() => {
            const buttons = Array.from({ length: 11 }, () => ({ pressed: false, value: 0 }));
            const pad = { id: "<b>pad", mapping: "", connected: true, axes: [0, 0, -1, 0, 0, -1, 0, 0], buttons };
            navigator.getGamepads = () => [pad];
            window.dispatchEvent(Object.assign(new Event("gamepadconnected"), { gamepad: pad }));
        }"""
    )
    expect(page.locator("#say")).to_contain_text("does not know the layout of <b>pad")
    page.click("#take_over")
    mode(page, "CORRECTING")
    page.wait_for_timeout(500)
    assert feeder.commands == []


def test_a_gamepad_takes_over_and_drives(page, feeder):
    page.evaluate(
        """() => {
            const buttons = Array.from({ length: 17 }, () => ({ pressed: false, value: 0 }));
            window.pad = { connected: true, mapping: "standard", axes: [0.03, -0.8, 0, 0], buttons };
            navigator.getGamepads = () => [window.pad];
            buttons[0].pressed = true;
        }"""
    )
    mode(page, "CORRECTING")
    until(page, lambda: len(feeder.commands) > 3)
    linear = feeder.commands[-1].twist[:3]
    assert linear[0] < 0  # away from the front camera, which looks back at the arm
    assert np.abs(linear[1:]).max() < 1e-6  # a stick that is almost at rest is at rest


def test_the_page_needs_nothing_but_its_own_server(browser, console):
    context = browser.new_context()
    page, wanted = context.new_page(), []
    page.on("request", lambda request: wanted.append(request.url))
    page.goto(console.url)
    page.wait_for_selector("body[data-mode='AUTONOMOUS']")
    context.close()
    assert all(url.startswith((console.url, "blob:")) for url in wanted)


def test_on_a_tablet_every_view_fits_and_what_matters_is_large(page):
    for view in ("session", "health", "live"):
        page.click(f"nav [data-view={view}]")
        for button in page.locator("button:visible").all():
            box = button.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 1024
            assert box["y"] + box["height"] <= 768
            assert box["height"] >= 40  # a finger's
    for vital, pixels in (("#mode", 36), ("#clock", 22), ("#take_over", 24), ("#stop", 24), ("#success", 22)):
        size = page.locator(vital).evaluate("node => parseFloat(getComputedStyle(node).fontSize)")
        assert size >= pixels
