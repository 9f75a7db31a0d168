"""``voice-fsm say``: a text into a file of audio, without a server."""

import sys
from pathlib import Path
from typing import Final

import attrs

from voice_fsm.audio import AudioFormat
from voice_fsm.client.recording import write_wav
from voice_fsm.config import Settings
from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.runtime.services import open_speech_alone
from voice_fsm.speech.service import SpeechRequest

STANDARD_OUTPUT: Final = Path("-")

_SUFFIXES: Final = {"pcm": ".wav", "ulaw": ".ulaw", "alaw": ".alaw", "mp3": ".mp3", "opus": ".ogg"}


@attrs.frozen
class Order:
    """What to say, and where to."""

    request: SpeechRequest
    out: Path


def make_order(
    text: str,
    *,
    default_hz: int,
    format_name: str | None = None,
    voice: str | None = None,
    model: str | None = None,
    speed: float | None = None,
    out: Path | None = None,
    cache: bool = True,
) -> Order:
    """Fill in what was left out.

    Raises:
        ClientError: there is no such format, or it does not go into such a file.
    """
    try:
        output_format = AudioFormat.parse(format_name or f"pcm_{default_hz}")
    except ValueError as error:
        raise ClientError(ClientFault.INVALID_FIELD, f"{error}.", field="format") from None
    out = out or Path("reply").with_suffix(_SUFFIXES[output_format.codec])
    if _is_wav(out) and output_format.codec != "pcm":
        raise ClientError(
            ClientFault.INVALID_FIELD,
            f"A .wav file is written of PCM, not of {output_format}: choose another name, or pcm_24000.",
            field="out",
        )
    options = TtsOptions(
        output_format=output_format,
        voice_id=voice,
        model_id=model,
        voice_settings=VoiceSettings(speed=speed),
    )
    return Order(SpeechRequest(text=text, options=options, cache=cache), out)


async def say(settings: Settings, order: Order) -> str:
    """Speak it, and tell what came of it in a sentence. A file is written once all is there.

    Raises:
        VoiceError: the text or the options cannot be served, or the provider failed.
        OSError: the file cannot be written.
    """
    audio, output_format = bytearray(), order.request.options.output_format
    async with (
        open_speech_alone(settings) as speech,
        speech.synthesize(order.request) as synthesis,
    ):
        async for data in synthesis.audio():
            audio += data
            if order.out == STANDARD_OUTPUT:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
    if order.out != STANDARD_OUTPUT:
        _write(order.out, bytes(audio), output_format)
    source = "from the cache" if synthesis.cached else f"by {settings.providers.tts}"
    seconds = output_format.duration_ms(len(audio)) / 1000
    return f"{order.out}: {seconds:.1f} s of {output_format}, {source}."


def _write(path: Path, audio: bytes, output_format: AudioFormat) -> None:
    if _is_wav(path):
        write_wav(path, audio, output_format.sample_rate_hz)
    else:
        path.write_bytes(audio)


def _is_wav(path: Path) -> bool:
    return path.suffix.lower() == ".wav"
