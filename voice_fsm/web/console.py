"""The browser test page: `/test`, its files, and the session machine as data for its diagram.

The files lie in ``console/`` beside this module. They are read once, when the routes are made: a request
never touches the disk, and no path of a request can name a file that is not served.
"""

from importlib import resources
from pathlib import PurePath
from typing import Final, TypedDict

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from statemachine import StateMachine


class MachineState(TypedDict):
    """One state of the diagram."""

    id: str
    initial: bool
    final: bool


MachineTransition = TypedDict("MachineTransition", {"from": str, "to": str, "event": str})
"""One way between two states; ``event`` is the name that `state.changed` gives as its ``input``."""


class MachineDiagram(TypedDict):
    """What `/test/machine.json` says."""

    states: list[MachineState]
    transitions: list[MachineTransition]


def describe_machine(chart: type[StateMachine]) -> MachineDiagram:
    """The diagram of a chart, straight from the chart."""
    states = list(chart.states)
    return {
        "states": [{"id": state.id, "initial": state.initial, "final": state.final} for state in states],
        "transitions": [
            {"from": state.id, "to": transition.target.id, "event": str(event)}
            for state in states
            for transition in state.transitions
            for event in transition.events
        ],
    }


_CONTENT_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_HEADERS: Final = {
    "Cache-Control": "no-cache",
    # 'self' covers the WebSocket too: CSP level 3 matches ws(s) on the page's own host and port.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def console_routes(machine: MachineDiagram) -> list[Route]:
    """Routes of the test page, for an app whose voice endpoint is `/v1/voice/ws` beside `/test`."""
    files = _load_files()
    page = files.pop("index.html")

    async def serve_page(_request: Request) -> Response:
        return page.response()

    async def serve_machine(_request: Request) -> Response:
        return JSONResponse(machine, headers=_HEADERS)

    async def serve_file(request: Request) -> Response:
        file = files.get(request.path_params["name"])
        return Response(status_code=404, headers=_HEADERS) if file is None else file.response()

    return [
        Route("/test", serve_page),
        Route("/test/machine.json", serve_machine),
        Route("/test/{name}", serve_file),
    ]


@attrs.frozen
class _File:
    body: bytes
    content_type: str

    def response(self) -> Response:
        return Response(self.body, media_type=self.content_type, headers=_HEADERS)


def _load_files() -> dict[str, _File]:
    folder = resources.files("voice_fsm.web") / "console"
    return {
        entry.name: _File(entry.read_bytes(), content_type)
        for entry in folder.iterdir()
        if (content_type := _CONTENT_TYPES.get(PurePath(entry.name).suffix))
    }
