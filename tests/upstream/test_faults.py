import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.faults import (
    bearer,
    codes_in,
    fault_of_status,
    httpx_errors_as,
    provider_error,
    refused,
    request_id,
    retry_after_s,
)

NOW = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (302, ProviderFault.REJECTED),
        (400, ProviderFault.REJECTED),
        (401, ProviderFault.AUTH_FAILED),
        (402, ProviderFault.QUOTA_EXCEEDED),
        (403, ProviderFault.AUTH_FAILED),
        (404, ProviderFault.REJECTED),
        (408, ProviderFault.TIMEOUT),
        (409, ProviderFault.REJECTED),
        (413, ProviderFault.REJECTED),
        (422, ProviderFault.REJECTED),
        (429, ProviderFault.RATE_LIMITED),
        (498, ProviderFault.OVERLOADED),
        (500, ProviderFault.SERVER_ERROR),
        (501, ProviderFault.SERVER_ERROR),
        (502, ProviderFault.OVERLOADED),
        (503, ProviderFault.OVERLOADED),
        (504, ProviderFault.TIMEOUT),
        (524, ProviderFault.TIMEOUT),
        (529, ProviderFault.OVERLOADED),
    ],
)
def test_each_status_is_one_fault(status: int, fault: ProviderFault) -> None:
    """An HTTP status that is no success is classified by what can be done about it."""
    assert fault_of_status(status) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (httpx.ConnectError("x"), ProviderFault.UNREACHABLE),
        (httpx.ConnectTimeout("x"), ProviderFault.UNREACHABLE),
        (httpx.ProxyError("x"), ProviderFault.UNREACHABLE),
        (httpx.PoolTimeout("x"), ProviderFault.TIMEOUT),
        (httpx.ReadTimeout("x"), ProviderFault.TIMEOUT),
        (httpx.WriteTimeout("x"), ProviderFault.TIMEOUT),
        (httpx.ReadError("x"), ProviderFault.TRUNCATED),
        (httpx.WriteError("x"), ProviderFault.TRUNCATED),
        (httpx.CloseError("x"), ProviderFault.TRUNCATED),
        (httpx.RemoteProtocolError("illegal status line"), ProviderFault.BAD_RESPONSE),
        (httpx.LocalProtocolError("Illegal header value b'Bearer s3cr3t'"), ProviderFault.REJECTED),
        (httpx.UnsupportedProtocol("x"), ProviderFault.UNAVAILABLE),
        (httpx.InvalidURL("x"), ProviderFault.UNAVAILABLE),
        (httpx.DecodingError("x"), ProviderFault.BAD_RESPONSE),
        (httpx.TooManyRedirects("x"), ProviderFault.BAD_RESPONSE),
        (httpx.StreamClosed(), ProviderFault.BAD_RESPONSE),
    ],
)
def test_each_httpx_error_is_one_fault(error: Exception, fault: ProviderFault) -> None:
    """Every exception of httpx leaves as a ProviderError, without the text that may quote a key."""
    with pytest.raises(ProviderError) as caught, httpx_errors_as(Upstream.TTS):
        raise error
    assert caught.value.fault is fault
    assert caught.value.upstream is Upstream.TTS
    told = caught.value.__cause__
    assert told is None or isinstance(told, httpx.NetworkError)
    assert caught.value.__suppress_context__


def test_every_transport_error_of_httpx_is_mapped() -> None:
    """A class that a later httpx adds is noticed here."""
    known = {
        *("TimeoutException", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout"),
        *("NetworkError", "ConnectError", "ReadError", "WriteError", "CloseError"),
        *("ProtocolError", "LocalProtocolError", "RemoteProtocolError", "ProxyError", "UnsupportedProtocol"),
    }
    found = {
        name
        for name in dir(httpx)
        if isinstance(kind := getattr(httpx, name), type) and issubclass(kind, httpx.TransportError)
    }
    assert found - {"TransportError"} == known


def test_our_own_errors_pass_through_the_mapping() -> None:
    """A ProviderError raised inside, such as that of a deadline, is left as it is."""
    ours = provider_error(Upstream.CHAT, ProviderFault.STALLED)
    with pytest.raises(ProviderError) as caught, httpx_errors_as(Upstream.TTS):
        raise ours
    assert caught.value is ours


@pytest.mark.parametrize("upstream", Upstream)
@pytest.mark.parametrize("fault", ProviderFault)
def test_each_fault_has_a_sentence(upstream: Upstream, fault: ProviderFault) -> None:
    """Each upstream and fault have a sentence that an end user can be told."""
    error = provider_error(upstream, fault)
    assert error.code == f"{upstream}_{fault}"
    assert error.message.startswith("The ")
    assert error.message.endswith(".")


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b'{"error":{"message":"m","type":"invalid_request_error","code":"invalid_api_key"}}',
         {"invalid_request_error", "invalid_api_key"}),
        (b'{"error":{"message":"m","type":"BadRequestError","param":null,"code":400}}', {"badrequesterror"}),
        (b'{"error":"Unauthorized"}', set()),
        (b'{"detail":{"status":"quota_exceeded","message":"m"}}', {"quota_exceeded"}),
        (b'{"detail":[{"loc":["body","text"],"type":"missing"}]}', set()),
        (b'{"err_code":"INVALID_AUTH","err_msg":"m"}', {"invalid_auth"}),
        (b'{"error_code":"model_sunsetted"}', {"model_sunsetted"}),
        (b"[1]", set()),
        (b"<html>", set()),
        (b"\xff\xfe", set()),
        (b"", set()),
        (b"[" * 32768, set()),
    ],
)  # fmt: skip
def test_codes_of_all_known_error_bodies(body: bytes, codes: set[str]) -> None:
    """The codes of the providers' several shapes of error are found, and odd bodies have none."""
    assert codes_in(body) == codes


@pytest.mark.parametrize("code", ["insufficient_quota", "quota_exceeded", "billing_hard_limit_reached"])
@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_used_up_quota_is_told_from_its_status(status: int, code: str) -> None:
    """A used-up quota is no passing matter, whichever status it comes with."""
    error = refused(Upstream.CHAT, status, httpx.Headers(), json.dumps({"error": {"code": code}}).encode())
    assert error.fault is ProviderFault.QUOTA_EXCEEDED
    assert not error.retryable


def test_a_refusal_carries_the_facts_and_no_words_of_the_upstream() -> None:
    """Status, request id, pause and codes can be read; the body appears in no text of the error."""
    headers = httpx.Headers({"X-Request-Id": "req_1", "Retry-After": "7"})
    body = b'{"error":{"message":"bad key s3cr3t","code":"nope"}}'
    error = refused(Upstream.TTS, 429, headers, body)
    assert (error.status, error.request_id, error.retry_after_s) == (429, "req_1", 7.0)
    assert error.codes == {"nope"}
    assert error.mentions("bad key")
    assert not error.mentions("registration")
    assert error.message == "The voice service is being asked too often (HTTP 429)."
    assert "s3cr3t" not in f"{error} {error!r} {error.message}"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"dg-request-id": "d"}, "d"),
        ({"x-trace-id": "t", "request-id": "r"}, "r"),
        ({"x-request-id": "a" * 300}, "a" * 128),
        ({"x-request-id": "a\x1b[31m"}, None),
    ],
)
def test_request_ids_are_found_and_tame(headers: dict[str, str], expected: str | None) -> None:
    """The usual headers are looked at, and what would spoil a log line is left out."""
    assert request_id(httpx.Headers(headers)) == expected


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "3", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(days=1), usegmt=True)}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:05"}, 5.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], expected_s: float | None) -> None:
    """Seconds, milliseconds and HTTP dates are read; nonsense is as good as nothing."""
    assert retry_after_s(httpx.Headers(headers), now=NOW) == expected_s


@given(st.text(st.characters(codec="ascii")))
@example("Mon, 01 Jan 99999 00:00:00 GMT")
@example(f"Mon, 01 Jan {2**64} 00:00:00 GMT")
@example("1 Jan 0 0 GMT")
def test_no_retry_after_is_an_error(value: str) -> None:
    """Whatever stands in the header, the answer is a pause or none."""
    pause_s = retry_after_s({"retry-after": value}, now=NOW)
    assert pause_s is None or pause_s >= 0


def test_a_key_becomes_a_header() -> None:
    """A key is sent as a bearer token, without the blanks it was pasted with; a blank one is not sent."""
    assert bearer(Upstream.CHAT, " key\n") == {"Authorization": "Bearer key"}
    assert bearer(Upstream.CHAT, " ") == {}


@pytest.mark.parametrize("key", ["s3cr3t\u2026", "s3\ncr3t", "s3\x00cr3t"])
def test_a_key_that_no_header_can_hold_is_refused_unquoted(key: str) -> None:
    """Left alone, httpx would quote such a key in its error; here it is told apart before."""
    with pytest.raises(ProviderError) as caught:
        bearer(Upstream.CHAT, key)
    assert caught.value.fault is ProviderFault.AUTH_FAILED
    assert "s3" not in repr(caught.value)
