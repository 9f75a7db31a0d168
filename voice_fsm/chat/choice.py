"""What a client's own choice of backend may be, and which key goes with it; pure."""

import re
from collections.abc import Iterable
from typing import Final

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.options import BackendOptions

# Narrower than any URL parser, so that no two of them can disagree on where such an address leads: no user,
# query or fragment, no escapes, no dot segments (checked below).
_PLAIN_URL: Final = re.compile(
    r"(?P<origin>https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)(?P<path>(?:/[A-Za-z0-9._~-]*)*)"
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def check_base_url(url: str, allowed: Iterable[str]) -> None:
    """See that a client's address is one of ours, or below one of them.

    Scheme, host and port have to be the same, and the path has to begin with the allowed one's segments.

    Raises:
        ClientError: ``invalid_field``: it is not. Which addresses are allowed is not told.
    """
    place = _place(url)
    places = (_place(base) for base in allowed)
    if place is None or not any(_is_below(place, base) for base in places if base is not None):
        raise ClientError(
            ClientFault.INVALID_FIELD,
            "`backend.base_url` must be an address that this server allows.",
            field="backend.base_url",
        )


def key_for(chosen: BackendOptions, own: BackendOptions) -> str:
    """Give the key to use: the client's, or ours, but ours only where it is meant to go.

    An address or a provider of the client's choice never gets to see the server's key.
    """
    if chosen.api_key:
        return chosen.api_key
    is_elsewhere = (chosen.base_url and _tidy(chosen.base_url) != _tidy(own.base_url or "")) or (
        chosen.provider and chosen.provider != own.provider
    )
    return "" if is_elsewhere else own.api_key or ""


def endpoint(base_url: str, path: str) -> str:
    """Append a path to a base address, with one slash between them."""
    return f"{_tidy(base_url)}/{path.lstrip('/')}"


def _tidy(url: str) -> str:
    return url.strip().rstrip("/")


def _place(url: str) -> tuple[str, tuple[str, ...]] | None:
    match = _PLAIN_URL.fullmatch(url.strip())
    if match is None:
        return None
    segments = tuple(match["path"].rstrip("/").split("/")[1:])
    if any(segment in ("", ".", "..") for segment in segments):
        return None
    origin = match["origin"].lower()
    return origin.removesuffix(_DEFAULT_PORTS[origin.partition(":")[0]]), segments


def _is_below(place: tuple[str, tuple[str, ...]], base: tuple[str, tuple[str, ...]]) -> bool:
    return place[0] == base[0] and place[1][: len(base[1])] == base[1]
