"""The one voice setting that most services have: how fast is spoken."""

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.options import TtsOptions


def check_speed(options: TtsOptions, slowest: float, fastest: float) -> None:
    """Hold the options' speed to what the voice can do; 1.0 is its own pace.

    Raises:
        ClientError: INVALID_FIELD.
    """
    speed = options.voice_settings.speed
    if speed is not None and not slowest <= speed <= fastest:
        raise ClientError(
            ClientFault.INVALID_FIELD,
            f"This voice takes a speed from {slowest:g} to {fastest:g}.",
            field="tts.voice_settings.speed",
        )
