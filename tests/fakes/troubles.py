"""What goes wrong with one call to a fake voice service, whichever it is."""

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from typing import Final

import attrs
import trio
from trio_websocket import WebSocketConnection

from tests.fakes.http_server import LAST_CHUNK, Fault, Pause, Step, chunk, response
from tests.fakes.sockets import read_head, reject, reset

DRIP_S = 3.0


class Trouble(Enum):
    """Ways to fail. "Midway" is after the first chunk of the call's audio."""

    HANG = auto()
    """No answer: over HTTP not even a head, on a socket no message."""
    HANG_IN_HANDSHAKE = auto()
    """The upgrade of a socket is never answered."""
    HANG_MIDWAY = auto()
    RESET = auto()
    """In place of the answer's head, or of a socket's agreement."""
    RESET_MIDWAY = auto()
    CUT_MIDWAY = auto()
    """A chunk or frame that announces more bytes than follow before the connection ends."""
    CLOSE_MIDWAY = auto()
    """The connection ends in good order, too early."""
    GARBAGE = auto()
    """In place of the answer's head, or of a socket's agreement, something that is no HTTP."""
    GARBAGE_MIDWAY = auto()
    """Over HTTP, bytes that are no chunk; on a socket, a message that is not of the protocol."""
    NO_AUDIO = auto()
    """All is well, but nothing is said."""
    DRIP = auto()
    """The audio comes in crumbs, each in time."""


@attrs.frozen
class Refuse:
    """An HTTP status; on a socket it answers the upgrade."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Say:
    """A message of a socket, or the body of an answer with status 200, in place of the audio."""

    text: str
    content_type: str = "application/json"


@attrs.frozen
class CloseWith:
    """A close of the socket in place of the audio."""

    code: int
    reason: str = ""


Misfortune = Trouble | Refuse | Say | CloseWith


def queue(troubles: Iterable[Misfortune | None]) -> deque[Misfortune | None]:
    """Make a fake's list of what is to befall its next calls; ``None`` is a good one."""
    return deque(troubles)


def before_http(trouble: Misfortune | None) -> Iterator[Step]:
    """Steps that go before an answer; what ends in a `Fault` leaves none."""
    match trouble:
        case Trouble.HANG:
            yield Fault.HANG
        case Trouble.RESET:
            yield Fault.RESET
        case Trouble.GARBAGE:
            yield b"\x16\x03\x01 this is no HTTP\r\n\r\n"
            yield Fault.CLOSE


def instead_of_http(trouble: Misfortune | None) -> bytes | None:
    """Make the whole answer that stands in place of the proper one, if there is any."""
    match trouble:
        case Refuse(status, body, headers):
            return response(status, body, **headers)
        case Say(text, content_type):
            return response(200, text.encode(), content_type=content_type)
    return None


def chunks_of(pieces: list[bytes], trouble: Misfortune | None, pause_s: float) -> Iterator[Step]:
    """Send the audio of an HTTP answer, as far as the trouble lets it."""
    if trouble is Trouble.NO_AUDIO:
        pieces = []
    if trouble is Trouble.DRIP:
        for number in range(0, len(pieces[0]), 2):
            yield chunk(pieces[0][number : number + 2])
            yield Pause(DRIP_S)
    for number, piece in enumerate(pieces):
        yield chunk(piece)
        if number == 0:
            yield from _midway(trouble)
        yield Pause(pause_s)
    yield LAST_CHUNK


def _midway(trouble: Misfortune | None) -> Iterator[Step]:
    match trouble:
        case Trouble.HANG_MIDWAY:
            yield Fault.HANG
        case Trouble.RESET_MIDWAY:
            yield Fault.RESET
        case Trouble.CUT_MIDWAY:
            yield b"1000\r\nonly a part"
            yield Fault.CLOSE
        case Trouble.CLOSE_MIDWAY:
            yield Fault.CLOSE
        case Trouble.GARBAGE_MIDWAY:
            yield b"no size of any chunk\r\n"
            yield Fault.CLOSE


IN_HANDSHAKE: Final = (Trouble.RESET, Trouble.GARBAGE, Trouble.HANG_IN_HANDSHAKE)


def take(troubles: deque[Misfortune | None], *, in_handshake: bool) -> Misfortune | None:
    """Take the next trouble of a socket, if it is one that befalls it at this stage."""
    if not troubles:
        return None
    is_of_handshake = isinstance(troubles[0], Refuse) or troubles[0] in IN_HANDSHAKE
    return troubles.popleft() if is_of_handshake or not in_handshake else None


async def misbehave_midway(
    connection: WebSocketConnection, stream: trio.SocketStream, trouble: Misfortune | None
) -> None:
    """Do to an open socket what is due after the first audio."""
    match trouble:
        case Trouble.HANG_MIDWAY:
            await trio.sleep_forever()
        case Trouble.RESET_MIDWAY:
            await reset(stream)
        case Trouble.CUT_MIDWAY:
            await stream.send_all(b"\x81\x7e\x10\x00only a part")
            await trio.aclose_forcefully(stream)
        case Trouble.CLOSE_MIDWAY:
            await connection.aclose(1000)
        case Trouble.GARBAGE_MIDWAY:
            await connection.send_message('{"type": "chu')


async def instead_of_handshake(stream: trio.SocketStream, trouble: Misfortune | None) -> bool:
    """Treat a client's upgrade as the trouble says; true if that was all."""
    match trouble:
        case Refuse(status, body, headers):
            await reject(stream, status, headers=headers, body=body)
        case Trouble.HANG_IN_HANDSHAKE:
            await read_head(stream)
            await stream.receive_some()
        case Trouble.RESET:
            await read_head(stream)
            await reset(stream)
        case Trouble.GARBAGE:
            await read_head(stream)
            await stream.send_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        case _:
            return False
    return True
