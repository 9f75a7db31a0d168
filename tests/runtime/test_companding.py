"""Kept audio is made smaller behind the back of the session."""

import math

import pytest
import trio
from trio.testing import MockClock

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import ulaw_decode, ulaw_encode
from voice_fsm.config import load_settings
from voice_fsm.fsm.options import PCM_16K
from voice_fsm.runtime.companding import AT_ONCE, EVERY_S, Companding
from voice_fsm.runtime.microphone import Microphone
from voice_fsm.runtime.services import open_services

AUDIO = bytes(range(256)) * 40
"""Samples of which mu-law has hardly any."""


async def sent(microphone: Microphone, audio: bytes) -> None:
    microphone.put(audio)
    await microphone.take()


async def said_again(microphone: Microphone) -> bytes:
    microphone.rewind()
    return (await microphone.take()).audio


async def test_what_was_sent_becomes_mu_law(autojump_clock: MockClock) -> None:
    """Of all microphones, however many; what was not sent yet stays as it came."""
    companding = Companding()
    microphones = [Microphone(PCM_16K, tell_kept=companding.add) for _ in range(2 * AT_ONCE + 1)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(companding.run)
        for microphone in microphones:
            await sent(microphone, AUDIO)
            microphone.put(AUDIO)
        await trio.sleep(EVERY_S + 0.1)
        for microphone in microphones:
            assert await said_again(microphone) == ulaw_decode(ulaw_encode(AUDIO)) + AUDIO
        nursery.cancel_scope.cancel()


async def test_each_audio_has_its_turn(autojump_clock: MockClock) -> None:
    """What comes after one time is made smaller the next time; too little of it waits for more."""
    companding = Companding()
    microphone = Microphone(PCM_16K, tell_kept=companding.add)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(companding.run)
        for audio in (AUDIO, AUDIO[:100], AUDIO):
            await sent(microphone, audio)
            await trio.sleep(3 * EVERY_S)
        assert await said_again(microphone) == ulaw_decode(ulaw_encode(AUDIO + AUDIO[:100] + AUDIO))
        nursery.cancel_scope.cancel()


async def test_nothing_is_done_while_nothing_is_kept(autojump_clock: MockClock) -> None:
    """A server that nobody talks to sleeps."""
    companding = Companding()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(companding.run)
        await sent(Microphone(PCM_16K, tell_kept=companding.add), AUDIO)
        await trio.sleep(2 * EVERY_S)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("codec", ["ulaw", "alaw"])
async def test_other_codecs_stay_as_they_came(codec: str) -> None:
    """They are small already."""
    audio_format = AudioFormat(codec, 8000)  # type: ignore[arg-type]  # a codec by name
    microphone = Microphone(audio_format, tell_kept=lambda kept: kept.compand())
    await sent(microphone, AUDIO)
    assert await said_again(microphone) == AUDIO


async def test_a_server_has_it_run(autojump_clock: MockClock) -> None:
    """It belongs to the services of all sessions."""
    settings = load_settings({"TTS_PROVIDER": "elevenlabs", "ELEVENLABS_API_KEY": "the-key"})
    async with open_services(settings, trio.Event()) as services:
        microphone = Microphone(PCM_16K, tell_kept=services.companding.add)
        await sent(microphone, AUDIO)
        await trio.sleep(EVERY_S + 0.1)
        assert await said_again(microphone) == ulaw_decode(ulaw_encode(AUDIO))
