"""What is said in a context of ElevenLabs' socket, and what goes together."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.options import VoiceSettings
from voice_fsm.tts.elevenlabs_context import Context
from voice_fsm.tts.elevenlabs_wire import Voice
from voice_fsm.tts.patience import Patience
from voice_fsm.tts.script import Script
from voice_fsm.upstream.http import Deadlines

VOICE = Voice(
    voice_id="v",
    model_id="eleven_flash_v2_5",
    output_format=AudioFormat("pcm", 8000),
    settings=VoiceSettings(stability=0.5),
    alignment=True,
)


class Peer:
    """Takes what it is sent."""

    def __init__(self) -> None:
        self.writes: list[list[dict[str, Any]]] = []
        self.socket: Any = SimpleNamespace(unfinished=set())

    async def send(self, *texts: str) -> None:
        await trio.lowlevel.checkpoint()
        self.writes.append([json.loads(text) for text in texts])

    def context(self, pieces: trio.MemoryReceiveChannel[str]) -> Context:
        return Context(VOICE, Script(pieces), self.socket, [])

    async def hear(self, context: Context) -> None:
        await context.speak(self.send, Patience(Deadlines()))


def told(write: list[dict[str, Any]]) -> list[str]:
    return [message.get("text", "closed") for message in write]


@pytest.fixture
def peer() -> Peer:
    return Peer()


async def test_a_reply_that_is_whole_goes_in_one_write(peer: Peer) -> None:
    """Its texts, of which the first alone brings the settings, and the end."""
    write, read = trio.open_memory_channel[str](2)
    with write:
        write.send_nowait("One.")
        write.send_nowait("Two.")

    await peer.hear(peer.context(read))

    assert [told(written) for written in peer.writes] == [["One. ", "Two. ", "closed"]]
    assert ["voice_settings" in message for message in peer.writes[0]] == [True, False, False]


async def test_text_waits_for_no_other(peer: Peer, nursery: trio.Nursery) -> None:
    """What is not written yet goes when it is."""
    write, read = trio.open_memory_channel[str](2)
    nursery.start_soon(peer.hear, peer.context(read))
    for piece in ("One.", "Two."):
        write.send_nowait(piece)
        await wait_all_tasks_blocked()
    write.close()
    await wait_all_tasks_blocked()

    assert [told(written) for written in peer.writes] == [["One. "], ["Two. "], ["closed"]]
    assert ["voice_settings" in written[0] for written in peer.writes] == [True, False, False]


async def test_a_context_that_was_never_begun_is_not_closed(peer: Peer) -> None:
    """To the service it would begin with that; and it does not count as one of the socket's."""
    write, read = trio.open_memory_channel[str](1)
    write.send_nowait("One.")
    context = peer.context(read)
    with trio.CancelScope() as scope:
        scope.cancel()
        await peer.hear(context)

    assert context.farewell() == ""
    assert peer.socket.unfinished == set()
