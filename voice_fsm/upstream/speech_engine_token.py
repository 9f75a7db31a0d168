"""The token by which a Speech Engine server knows that it is ElevenLabs (or a session of ours) that calls.

A JWT (HS256) whose HMAC key is the SHA-256 of the API key, in a header of the upgrade request. Source: the
official SDKs (Python 2.78, JavaScript 2.73), whose verifiers accept and refuse what this one does, but for
the algorithm: they take any that is named in the token's header, this one HS256 alone.
"""

import hashlib
import re
from typing import Any, Final

import jwt

HEADER: Final = "X-Elevenlabs-Speech-Engine-Authorization"
LIFETIME_S: Final = 300
LEEWAY_S: Final = 60
"""How far two clocks may be apart."""

_ISSUER: Final = "https://api.elevenlabs.io/convai/speech-engine"
_SUBJECT: Final = "convai_speech_engine_upstream"
_ALGORITHM: Final = "HS256"
_RESIDENCY: Final = re.compile(r"_residency_[a-z0-9]+$")
_BEARER: Final = re.compile(r"^\s*(?:bearer\s+)?", re.IGNORECASE)


class TokenError(Exception):
    """The token proves nothing; the message says why, for the operator's log."""


def sign_token(api_key: str, *, now_s: float) -> str:
    """Make a token that is good for `LIFETIME_S`; ``now_s`` are seconds since 1970."""
    issued_s = int(now_s)
    claims = {"iss": _ISSUER, "sub": _SUBJECT, "iat": issued_s, "exp": issued_s + LIFETIME_S}
    return jwt.encode(claims, _signing_key(api_key), algorithm=_ALGORITHM)


def verify_token(token: str, api_key: str, *, now_s: float) -> None:
    """See that somebody who knows the API key made this token a short while ago.

    Signatures are compared in constant time. ``Bearer`` before the token is allowed.

    Raises:
        TokenError: it is not so.
    """
    try:
        claims = jwt.decode(
            _BEARER.sub("", token).strip(),
            _signing_key(api_key),
            algorithms=[_ALGORITHM],
            issuer=_ISSUER,
            subject=_SUBJECT,
            # The library would ask its own clock.
            options={
                "require": ["iss", "sub", "iat", "exp"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_aud": False,
            },
        )
    except jwt.InvalidTokenError as error:
        raise TokenError(str(error)) from None
    if _seconds(claims, "iat") - LEEWAY_S > now_s:
        raise TokenError("it was issued in the future")
    if _seconds(claims, "exp") + LEEWAY_S < now_s:
        raise TokenError("it has expired")


def _signing_key(api_key: str) -> bytes:
    return hashlib.sha256(_RESIDENCY.sub("", api_key.strip()).encode()).digest()


def _seconds(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"{name} is no number")
    return value
