"""Reading exception groups at the two places that decide: the end of a turn and the end of a link."""

from voice_fsm.errors import VoiceError


def first_error(group: BaseExceptionGroup[VoiceError]) -> VoiceError:
    """The first single error in a group, however deep."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
