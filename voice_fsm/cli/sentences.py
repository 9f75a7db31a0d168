"""Faults told in a sentence, where they are no fault of ours."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click

from voice_fsm.errors import VoiceError


@contextmanager
def in_sentences(*also: type[Exception], address: str = "") -> Iterator[None]:
    """Tell what went wrong in a sentence, if it is no fault of ours.

    Args:
        also: Exceptions that are none of ours either, besides `VoiceError` and `OSError`.
        address: The one that is to be listened on.

    Raises:
        click.ClickException: with the sentence.
        click.Abort: it was Ctrl-C.
    """
    known: tuple[type[Exception], ...] = (VoiceError, OSError, *also)
    try:
        yield
    except known as error:
        raise click.ClickException(_sentence(error, address)) from None
    except BaseExceptionGroup as group:  # of a run that is over
        if group.subgroup(KeyboardInterrupt):
            raise click.Abort from None
        expected, faults = group.split(known)
        if expected is None or faults is not None:
            raise
        raise click.ClickException(_sentence(expected, address)) from None


def _sentence(error: BaseException, address: str) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if address and isinstance(error, OSError):
        return f"cannot {f'listen on {address}' if _is_about_an_address(error) else 'start'}: {error}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, VoiceError):
        cause = cause.__context__  # an app that failed to start wraps what was wrong
    return str(cause or error)


def _is_about_an_address(error: OSError) -> bool:
    numbers = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
    return isinstance(error, socket.gaierror) or error.errno in numbers
