"""The console's server: who may open it, and what it makes of pages that misbehave."""

import asyncio
import http.client
import json
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import pytest
from desk_feeder import PATIENCE, Feeder

from vla_rl.hil.console import serve
from vla_rl.hil.console.access import is_loopback
from vla_rl.hil.console.link import AHEAD, LAG_S


@pytest.fixture
def feeder():
    with Feeder() as feeding:
        yield feeding


@pytest.fixture
def console(feeder):
    served = serve(feeder.desk, port=0, lag_s=PATIENCE * LAG_S)
    yield served
    served.close()


def get(url, path="/", **headers):
    """Status and headers of a plain request."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", path, headers={"Host": urlsplit(url).netloc, **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers


def with_socket(console, talk, **headers):
    """What `talk(socket)` returns over a page's socket."""

    async def run():
        async with aiohttp.ClientSession() as session:
            url = console.url.partition("?")[0] + "live"
            async with session.ws_connect(url, headers=headers, max_msg_size=0) as socket:
                return await asyncio.wait_for(talk(socket), 20)

    return asyncio.run(run())


async def state_of(socket):
    """The next state that comes, with its time; it is not acknowledged."""
    async for message in socket:
        found = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
        if "state" in found:
            return found
    return None


async def answer_of(socket, wish):
    """The answer to a message, whatever else comes before it."""
    await socket.send_str(wish if isinstance(wish, str) else json.dumps(wish))
    async for message in socket:
        found = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
        if "answer" in found:
            return found
    return None


def test_another_address_than_loopback_needs_the_token_which_moves_into_a_cookie(feeder):
    console = serve(feeder.desk, host="0.0.0.0", port=0)
    try:
        url = f"http://127.0.0.1:{urlsplit(console.url).port}"
        query = urlsplit(console.url).query
        assert len(query) > len("token=") + 16
        assert get(url)[0] == 401
        assert get(url, "/live")[0] == 401
        assert get(url, "/thumbnails/0.jpg")[0] == 401
        assert get(url, "/?token=guess")[0] == 401
        status, headers = get(url, f"/?{query}")
        assert (status, headers["Location"]) == (303, "/")
        assert "HttpOnly" in headers["Set-Cookie"]
        assert "SameSite=Strict" in headers["Set-Cookie"]
        assert get(url, Cookie=headers["Set-Cookie"].partition(";")[0])[0] == 200
    finally:
        console.close()


def test_the_address_that_is_printed_for_everybody_is_one_that_others_can_open(feeder):
    console = serve(feeder.desk, host="0.0.0.0", port=0)
    try:
        assert urlsplit(console.url).hostname != "0.0.0.0"
        assert get(console.url, f"/?{urlsplit(console.url).query}")[0] == 303
    finally:
        console.close()


def test_two_consoles_of_one_host_stay_open_in_one_browser(feeder):
    consoles = [serve(feeder.desk, host="0.0.0.0", port=0) for _ in range(2)]
    try:
        jar = {}
        for console in consoles:
            cookie = get(console.url, f"/?{urlsplit(console.url).query}")[1]["Set-Cookie"].partition(";")[0]
            jar |= [cookie.split("=", 1)]
        together = "; ".join("=".join(cookie) for cookie in jar.items())
        assert [get(console.url, Cookie=together)[0] for console in consoles] == [200, 200]
    finally:
        for console in consoles:
            console.close()


def test_on_loopback_nothing_is_needed_but_a_name_of_this_machine(console):
    assert get(console.url)[0] == 200
    assert get(console.url, Host="evil.example:8400")[0] == 403


def test_a_page_of_another_site_gets_no_socket(console):
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        with_socket(console, lambda socket: socket.receive(), Origin="http://evil.example")


def test_pages_may_load_nothing_from_elsewhere_and_can_not_be_framed(console):
    policy = get(console.url)[1]["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "path", ["/../server.py", "/%2e%2e/server.py", "/page/main.js", "/thumbnails/../0.jpg", "/x.js"]
)
def test_only_the_pages_own_files_are_served(console, path):
    assert get(console.url, path)[0] in (403, 404)


def test_a_port_that_is_taken_is_one_line(console, feeder):
    port = urlsplit(console.url).port
    with pytest.raises(ValueError, match=f"127.0.0.1:{port} .*choose another port") as refused:
        serve(feeder.desk, port=port)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "wish",
    [
        "no json",
        "[1]",
        '{"act": 7}',
        '{"act": "__init__"}',
        '{"act": "instruct"}',
        "[" * 9000,
        '{"act": "note", "id": {}}',
    ],
)
def test_what_makes_no_sense_is_refused_and_the_page_stays(console, feeder, wish):
    async def talk(socket):
        first = await answer_of(socket, wish)
        return first, await answer_of(socket, {"act": "pause", "id": 5})

    refused, granted = with_socket(console, talk)
    assert (refused["ok"], bool(refused["text"])) == (False, True)
    assert (granted["ok"], granted["answer"]) == (True, 5)
    assert feeder.asked == [("pause", True)]


@pytest.mark.parametrize(
    "drive",
    [
        7,
        {"keys": "W"},
        {"keys": [7, None, "KeyZ"]},
        {"axes": [1e999, None, "x"]},
        {"axes": {}},
        {"keys": [], "axes": [10]},
        {"axes": [10**400]},
    ],
)
def test_driving_nonsense_drives_nowhere_too_fast(console, feeder, drive):
    async def talk(socket):
        await answer_of(socket, {"act": "take_over", "id": 1})
        await socket.send_str(json.dumps({"drive": drive, "at": (await state_of(socket))["at"]}))
        return await answer_of(socket, {"act": "note", "text": "x", "id": 2})

    assert with_socket(console, talk) is not None, "it cost the page its socket"
    assert all(abs(command.twist).max() <= 1.3 for command in feeder.commands)


def test_an_instruction_of_100_mb_cuts_the_page_off_and_changes_nothing(console, feeder):
    async def talk(socket):
        with suppress(ConnectionError, aiohttp.ClientError):  # the server does not wait for all of it
            await socket.send_str(json.dumps({"act": "instruct", "text": "x" * 100_000_000}))
        while (await socket.receive()).type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            pass

    with_socket(console, talk)
    assert len(feeder.instructions) == 1
    assert get(console.url)[0] == 200


def test_a_page_that_does_not_keep_up_is_sent_no_more_than_it_takes(console):
    async def talk(socket):
        pictures = states = 0
        while True:
            try:
                message = await asyncio.wait_for(socket.receive(), 0.5)
            except TimeoutError:
                return pictures, states
            pictures += message.type is aiohttp.WSMsgType.BINARY
            states += message.type is aiohttp.WSMsgType.TEXT and '"state"' in message.data

    assert with_socket(console, talk) == (2 * AHEAD, AHEAD)


def test_a_page_is_told_of_a_camera_before_it_is_sent_its_pictures(console, feeder):
    feeder.unplugged |= {"front", "wrist"}
    feeder.desk._frames.clear()

    async def talk(socket):
        for _ in range(AHEAD):
            assert (await state_of(socket))["state"]["cameras"] == []
        feeder.unplugged.clear()  # and the page, which is slow, can be told of nothing yet
        with suppress(TimeoutError):
            message = await asyncio.wait_for(socket.receive(), 0.5)
            raise AssertionError(f"it was sent {message.data[:40]}")
        await socket.send_str('{"seen": "state"}')
        assert sorted((await state_of(socket))["state"]["cameras"]) == ["front", "wrist"]
        return (await socket.receive()).type

    assert with_socket(console, talk) is aiohttp.WSMsgType.BINARY


@pytest.mark.parametrize("late", [True, False])
def test_beats_that_come_evenly_count_only_where_what_they_have_seen_is_new(console, feeder, late):
    async def talk(socket):
        state = await state_of(socket)
        await socket.send_str(json.dumps({"beat": 1, "at": state["at"]}))
        await answer_of(socket, {"act": "take_over", "id": 1})
        for _ in range(round(20 * PATIENCE * LAG_S)):
            await socket.send_str('{"seen": "state"}')
            state = state if late else await state_of(socket)
            await socket.send_str(json.dumps({"beat": 1, "at": state["at"]}))
            await asyncio.sleep(0.1)
        return feeder.desk.driving

    assert with_socket(console, talk) is not late


@pytest.mark.parametrize("at", [None, "now", True, -1, 1e999, 10**400, {}])
def test_a_page_that_says_nothing_sensible_of_what_it_has_seen_does_not_drive(console, feeder, at):
    async def talk(socket):
        await socket.send_str(json.dumps({"beat": 1, "at": (await state_of(socket))["at"]}))
        await answer_of(socket, {"act": "take_over", "id": 1})
        await socket.send_str(json.dumps({"drive": {"keys": ["KeyW"]}, "at": at}))
        await asyncio.sleep(0.3)  # ten periods, in which the key would count
        return await answer_of(socket, {"act": "pause", "id": 2})

    assert with_socket(console, talk)["ok"]
    assert feeder.commands == []


def test_closing_the_console_says_goodbye_to_its_pages(feeder):
    console = serve(feeder.desk, port=0)

    async def talk(socket):
        await socket.receive()
        await asyncio.get_running_loop().run_in_executor(None, console.close)
        while (message := await socket.receive()).type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            pass
        return message.type

    assert with_socket(console, talk) in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    with pytest.raises(ConnectionError):
        get(console.url)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("robot", False),
        ("", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host, local):
    assert is_loopback(host) is local
