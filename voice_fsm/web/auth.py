"""Who may use this server: keys for servers, and tokens for browsers, which cannot keep a key.

A key comes in the header ``xi-api-key`` (as ElevenLabs' clients send it) or ``Authorization: Bearer`` (as
OpenAI's do). A token is bought with a key at `POST /v1/tokens`, is good for one use, and comes in the query,
as ``token`` or ``single_use_token``: a browser can put no header on a WebSocket or an ``<audio>`` element.
Such an element asks for one sound in several ranges, which are one use.

A token is signed, so that every worker process knows it by itself; that it has been used is remembered by
the process that saw it.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

import attrs
from itsdangerous import BadData, URLSafeSerializer
from starlette.requests import HTTPConnection

from voice_fsm.errors import AccessDenied

ANY_USE: Final = "any"
"""What a token is for whose buyer did not say."""

_TOKEN_QUERIES: Final = ("token", "single_use_token")
_TOKEN_METHODS: Final = (None, "GET")
"""A WebSocket has no method. Whoever can send another request than GET can send a header."""
_MOST_SPENT: Final = 100_000
_LONGEST_TOKEN_CHARS: Final = 500


class TokenMint:
    """Makes tokens, and takes each of them once.

    Args:
        secret: What tokens are signed with; the same for all workers.
        ttl_s: How long a token may wait for its use.
        clock_s: Seconds since 1970.
    """

    def __init__(self, secret: str, ttl_s: float, *, clock_s: Callable[[], float] = time.time) -> None:
        self.ttl_s = ttl_s
        self._clock_s = clock_s
        self._serializer = URLSafeSerializer(
            secret, salt="voice-fsm-token", signer_kwargs={"digest_method": hashlib.sha256}
        )
        self._spent: dict[str, tuple[float, str]] = {}
        """Until when each used token would have held, and for what it was used; the oldest use first."""

    def issue(self, use: str = ANY_USE, ttl_s: float | None = None) -> str:
        """Make a token for one ``use``, which waits for it as long as all do, or ``ttl_s``."""
        expires_s = round(self._clock_s() + (self.ttl_s if ttl_s is None else ttl_s))
        token = self._serializer.dumps([secrets.token_urlsafe(12), use, expires_s])
        return token if isinstance(token, str) else token.decode("ascii")

    def redeem(self, token: str, use: str, parts_of: str = "") -> bool:
        """Take a token; whether it was one for this use, in time, and not used here before.

        ``parts_of`` names what is asked for in parts: any number of them, of the same, are one use.
        """
        try:
            name, bought_for, expires_s = self._serializer.loads(token[:_LONGEST_TOKEN_CHARS])
        except BadData:
            return False
        now_s = self._clock_s()
        if now_s >= expires_s or bought_for not in (use, ANY_USE):
            return False
        if name in self._spent:
            return bool(parts_of) and self._spent[name] == (expires_s, parts_of)
        self._forget_expired(now_s)
        if len(self._spent) >= _MOST_SPENT:
            return False  # rather none than one that may have been used
        self._spent[name] = expires_s, parts_of
        return True

    def _forget_expired(self, now_s: float) -> None:
        while self._spent:
            oldest, (expires_s, _) = next(iter(self._spent.items()))
            if expires_s > now_s:
                return
            del self._spent[oldest]


@attrs.frozen
class Gate:
    """Lets in who shows a key or a token; without keys everybody."""

    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    mint: TokenMint = attrs.field(factory=lambda: TokenMint(secrets.token_hex(), 300.0), repr=False)

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked for anything."""
        return not self.keys

    def check_key(self, connection: HTTPConnection) -> None:
        """Ask for a key; a token does not do.

        Raises:
            AccessDenied: there is none, or a wrong one.
        """
        if self.is_open:
            return
        shown = shown_key(connection)
        if shown is None:
            raise AccessDenied("This needs an API key, in the header xi-api-key or as a bearer token.")
        if not self.holds(shown):
            raise AccessDenied("The API key is not one of this server's.")

    def check_secret(self, secret: str | None, use: str) -> None:
        """Ask for a key, or for a token bought for ``use``, in whichever place the protocol has for it.

        Raises:
            AccessDenied: neither was shown, or not one that holds.
        """
        if self.is_open:
            return
        if not secret:
            raise AccessDenied("This needs an API key, or a token bought with one.")
        if not self.holds(secret) and not self.mint.redeem(secret, use):
            raise AccessDenied("The API key is not one of this server's, nor a token that holds.")

    def check(self, connection: HTTPConnection, use: str) -> None:
        """Ask for a key, or on WebSockets and GET requests for a token bought for ``use``.

        Raises:
            AccessDenied: neither was shown, or not one that holds.
        """
        if self.is_open:
            return
        token = next(filter(None, map(connection.query_params.get, _TOKEN_QUERIES)), None)
        if token is None or connection.scope.get("method") not in _TOKEN_METHODS:
            self.check_key(connection)
        elif not self.mint.redeem(token, use, _parts_of(connection)):
            raise AccessDenied("The token is unknown, used, expired, or for something else.")

    def holds(self, key: str) -> bool:
        """Whether ``key`` is one of this server's; takes the same time whichever it is."""
        digest = _digest(key)
        return sum([hmac.compare_digest(digest, _digest(known)) for known in self.keys]) > 0


def shown_key(connection: HTTPConnection) -> str | None:
    """The key in the headers, if there is one."""
    key = connection.headers.get("xi-api-key")
    if key:
        return key
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _parts_of(connection: HTTPConnection) -> str:
    """Name the address that a range is asked of; blank, where all of it is."""
    if "range" not in connection.headers:
        return ""
    address = f"{connection.scope['path']}?{connection.scope['query_string'].decode('latin-1')}"
    return _digest(address).hex()


def _digest(key: str) -> bytes:
    """Of one length whatever the key's, and of bytes whatever its characters."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
