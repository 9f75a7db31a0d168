"""The routes of the test page."""

import json
from collections.abc import AsyncIterator
from importlib import resources

import httpx
import pytest
from starlette.applications import Starlette
from statemachine import State, StateMachine

from voice_fsm.fsm.chart import SessionChart
from voice_fsm.web.console import MachineDiagram, console_routes, describe_machine

MACHINE: MachineDiagram = {
    "states": [{"id": "on", "initial": True, "final": False}, {"id": "off", "initial": False, "final": True}],
    "transitions": [{"from": "on", "to": "off", "event": "switch"}],
}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=console_routes(MACHINE))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test", follow_redirects=False
    ) as http:
        yield http


async def test_page_is_html(client: httpx.AsyncClient) -> None:
    """`GET /test` gives the page itself."""
    response = await client.get("/test")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.text.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("main.js", "text/javascript; charset=utf-8"),
        ("playback-worklet.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_file_has_its_content_type(client: httpx.AsyncClient, name: str, content_type: str) -> None:
    """With `nosniff`, a browser runs a module only under its right type."""
    response = await client.get(f"/test/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"] == content_type
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_every_file_of_the_folder_is_served(client: httpx.AsyncClient) -> None:
    """A file added to the folder needs no line of code, and is served byte for byte."""
    files = list((resources.files("voice_fsm.web") / "console").iterdir())
    assert len(files) > 10
    for file in files:
        path = "/test" if file.name == "index.html" else f"/test/{file.name}"
        assert (await client.get(path)).content == file.read_bytes()


@pytest.mark.parametrize("path", ["/test", "/test/main.js", "/test/machine.json", "/test/missing.js"])
async def test_headers_are_strict(client: httpx.AsyncClient, path: str) -> None:
    """Nothing is cached unasked, and the page runs and loads only what this server gives it."""
    headers = (await client.get(path)).headers
    assert headers["cache-control"] == "no-cache"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


@pytest.mark.parametrize(
    "path",
    [
        "/test/missing.js",
        "/test/index.html",
        "/test/..%2fconsole.py",
        "/test/%2e%2e/console.py",
        "/test/a/b.js",
    ],
)
async def test_anything_else_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    """No path leads out of the folder, and the page has one address only."""
    assert (await client.get(path)).status_code == 404


async def test_only_reading_is_allowed(client: httpx.AsyncClient) -> None:
    """A POST to the page is refused."""
    assert (await client.post("/test")).status_code == 405


async def test_machine_is_given_as_data(client: httpx.AsyncClient) -> None:
    """The diagram's data is what the routes were made with."""
    response = await client.get("/test/machine.json")
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.text) == MACHINE


def test_chart_describes_itself() -> None:
    """States, ways and the events on them come from a chart, guarded and internal ones too."""

    class Lamp(StateMachine):
        off = State(initial=True)
        on = State()
        broken = State(final=True)
        press = off.to(on, cond="has_power") | off.to(broken) | on.to(on, internal=True)
        smash = on.to(broken)

        def has_power(self) -> bool:
            return True

    assert describe_machine(Lamp) == {
        "states": [
            {"id": "off", "initial": True, "final": False},
            {"id": "on", "initial": False, "final": False},
            {"id": "broken", "initial": False, "final": True},
        ],
        "transitions": [
            {"from": "off", "to": "on", "event": "press"},
            {"from": "off", "to": "broken", "event": "press"},
            {"from": "on", "to": "on", "event": "press"},
            {"from": "on", "to": "broken", "event": "smash"},
        ],
    }


def test_session_chart_can_be_drawn() -> None:
    """The real machine: all its states, and the way of a conversation through them."""
    machine = describe_machine(SessionChart)
    ways = {(way["from"], way["to"]) for way in machine["transitions"]}
    assert {state["id"] for state in machine["states"]} == {
        "unconfigured",
        "listening",
        "thinking",
        "speaking",
        "hesitating",
        "speculating",
        "holding",
        "closed",
    }
    assert ways >= {("listening", "thinking"), ("thinking", "speaking"), ("speaking", "listening")}
