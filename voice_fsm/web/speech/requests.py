"""Reading requests within limits, and working on one only while its client waits."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from voice_fsm.web.speech.refusals import RequestError

T = TypeVar("T")

BODY_WITHIN_S: Final = 60.0
_FORM_FIELDS: Final = 100


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read a request's body.

    Raises:
        RequestError: 413 or 408: it is too large, or slow to come.
    """
    with trio.move_on_after(BODY_WITHIN_S):
        return await _limited(request, max_bytes).body()
    raise _slow()


async def read_form(request: Request, max_bytes: int) -> FormData:
    """Read a multipart form; who calls closes it.

    Raises:
        RequestError: 413, 408, or 400: it is no form.
    """
    with trio.move_on_after(BODY_WITHIN_S):
        try:
            return await _limited(request, max_bytes).form(max_files=1, max_fields=_FORM_FIELDS)
        except HTTPException as error:
            raise RequestError(400, "invalid_form", f"The form cannot be read: {error.detail}") from None
    raise _slow()


async def read_upload(form: FormData) -> bytes:
    """The bytes of the form's ``file``.

    Raises:
        RequestError: 422: there is none, or it is empty.
    """
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise RequestError(422, "missing", "The form has no file.", field="body.file")
    data = await upload.read()
    if not data:
        raise RequestError(422, "empty_file", "The file is empty.", field="body.file")
    return data


async def while_connected(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Do ``work`` for a client whose request has been read; stop when it leaves.

    Raises:
        ClientDisconnect: it has left.
    """
    result = list[T]()
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel(reason="the client has left")

        nursery.start_soon(watch)
        result.append(await work())
        nursery.cancel_scope.cancel(reason="the work is done")
    if not result:
        raise ClientDisconnect
    return result[0]


def _limited(request: Request, max_bytes: int) -> Request:
    """The same request, whose body is read to ``max_bytes`` at most."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    read_bytes = 0

    async def receive() -> Message:
        nonlocal read_bytes
        message = await request.receive()
        read_bytes += len(message.get("body", b""))
        if read_bytes > max_bytes:
            raise _too_large(max_bytes)
        return message

    return Request(request.scope, receive)


def _slow() -> RequestError:
    return RequestError(408, "request_timeout", f"The body did not come within {BODY_WITHIN_S:g} seconds.")


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(413, "request_too_large", f"The body has more than {max_bytes} bytes.")
