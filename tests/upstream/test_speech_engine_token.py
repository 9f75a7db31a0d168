import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from elevenlabs.speech_engine.resource import verify_speech_engine_jwt

from voice_fsm.upstream.speech_engine_token import TokenError, sign_token, verify_token

KEY = "sk_test_key"
ISSUED_S, EXPIRES_S = 1_800_000_000, 1_800_000_300
TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2FwaS5lbGV2ZW5sYWJzLmlvL2NvbnZhaS9zcGVlY2gtZW5na"
    "W5lIiwic3ViIjoiY29udmFpX3NwZWVjaF9lbmdpbmVfdXBzdHJlYW0iLCJpYXQiOjE4MDAwMDAwMDAsImV4cCI6MTgwMDAwMDMwMH0.GZcC"
    "F6-wIdQB_ALQm6R3iqSkJH37MT_30K7W1c_Dkmk"
)
"""Made by an independent implementation."""
CLAIMS = {
    "iss": "https://api.elevenlabs.io/convai/speech-engine",
    "sub": "convai_speech_engine_upstream",
    "iat": ISSUED_S,
    "exp": EXPIRES_S,
}
HMAC_KEY = bytes.fromhex("33bb0b962bffeef10ef3630b2ad6a7ea31e47b756bf98753d74407fc9e9d48b9")


def signed_by_hand(header: dict[str, str], digest: Any) -> str:
    """A token whose signature is right by some algorithm."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, CLAIMS)
    ]
    signature = hmac.new(HMAC_KEY, ".".join(parts).encode(), digest).digest()
    return ".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


def test_the_known_token_is_made() -> None:
    """Byte for byte, so that every verifier knows it."""
    assert sign_token(KEY, now_s=ISSUED_S) == TOKEN


@pytest.mark.parametrize("key", [KEY, f" {KEY} ", f"{KEY}_residency_in"])
@pytest.mark.parametrize("prefix", ["", "Bearer ", " bearer  "])
def test_a_token_is_good_for_its_key_however_that_is_written(key: str, prefix: str) -> None:
    """Spaces and the residency of a key do not count, nor does a scheme before the token."""
    verify_token(f"{prefix}{TOKEN} ", key, now_s=ISSUED_S)


@pytest.mark.parametrize(
    ("now_s", "reason"),
    [(ISSUED_S - 61, "future"), (ISSUED_S - 60, None), (EXPIRES_S + 60, None), (EXPIRES_S + 61, "expired")],
)
def test_clocks_may_be_a_minute_apart(now_s: float, reason: str | None) -> None:
    """And not a second more."""
    if reason is None:
        verify_token(TOKEN, KEY, now_s=now_s)
    else:
        with pytest.raises(TokenError, match=reason):
            verify_token(TOKEN, KEY, now_s=now_s)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "abc",
        "a.b.c",
        TOKEN[:-2],
        signed_by_hand({"alg": "HS512"}, hashlib.sha512),
        signed_by_hand({"alg": "none"}, hashlib.sha256),
        jwt.encode(CLAIMS | {"iss": "https://example.com"}, HMAC_KEY),
        jwt.encode(CLAIMS | {"sub": "somebody"}, HMAC_KEY),
        jwt.encode({name: value for name, value in CLAIMS.items() if name != "exp"}, HMAC_KEY),
        jwt.encode({name: value for name, value in CLAIMS.items() if name != "iat"}, HMAC_KEY),
        jwt.encode(CLAIMS | {"exp": "tomorrow"}, HMAC_KEY),
        jwt.encode(CLAIMS | {"exp": True}, HMAC_KEY),
        jwt.encode(CLAIMS, b"another key of 32 bytes or more..."),
    ],
)
def test_anything_else_is_no_token(token: str) -> None:
    """Neither other algorithms nor other claims, nor a signature by another key."""
    with pytest.raises(TokenError):
        verify_token(token, KEY, now_s=ISSUED_S)


def test_the_official_verifier_accepts_what_we_sign() -> None:
    """As of now, by its own clock."""
    verify_speech_engine_jwt(sign_token(KEY, now_s=time.time()), KEY)
