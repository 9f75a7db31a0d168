import pytest

from voice_fsm.chat.choice import check_base_url, endpoint, key_for
from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.options import BackendOptions

ALLOWED = ("https://api.example.com/openai/v1/", "http://127.0.0.1:11434", "not an address")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/openai/v1",
        "https://api.example.com/openai/v1/",
        "https://API.example.com:443/openai/v1/tenant-7",
        "http://127.0.0.1:11434/v1",
        " http://127.0.0.1:11434 ",
    ],
)
def test_addresses_at_or_below_an_allowed_one_pass(url: str) -> None:
    """Host in any case, the scheme's own port, and paths below are the same place."""
    check_base_url(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com",
        "https://api.example.com/openai/v10",
        "https://api.example.com/openai/v1/../../admin",
        "https://api.example.com/openai/v1/./x",
        "https://api.example.com/openai/v1/%2e%2e/admin",
        "https://api.example.com/openai/v1//admin",
        "https://api.example.com/openai/v1?x=1",
        "https://api.example.com/openai/v1#x",
        "https://api.example.com/openai/v1\\admin",
        "http://api.example.com/openai/v1",
        "https://api.example.com:8443/openai/v1",
        "https://api.example.com@evil.example/openai/v1",
        "https://evil.example/https://api.example.com/openai/v1",
        "https://api.example.com.evil.example/openai/v1",
        "https://api.example.com\n.evil.example/openai/v1",
        "http://127.0.0.1",
        "http://127.0.0.1:80",
        "http://127.1:11434",
        "http://2130706433:11434",
        "http://[::1]:11434",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "gopher://127.0.0.1:11434",
        "//127.0.0.1:11434",
        "127.0.0.1:11434",
        "",
    ],
)
def test_all_other_addresses_are_refused(url: str) -> None:
    """Nothing that could lead elsewhere passes, and the answer tells no address of ours."""
    with pytest.raises(ClientError) as caught:
        check_base_url(url, ALLOWED)
    assert (caught.value.fault, caught.value.field) == (ClientFault.INVALID_FIELD, "backend.base_url")
    assert "example" not in caught.value.message


def test_nothing_is_allowed_unless_said() -> None:
    """An empty list allows nothing."""
    with pytest.raises(ClientError):
        check_base_url("https://api.example.com", ())


OWN = BackendOptions(provider="acme", base_url="https://api.example.com/v1", api_key="ours")


@pytest.mark.parametrize(
    ("chosen", "key"),
    [
        (BackendOptions(), "ours"),
        (BackendOptions(model="big"), "ours"),
        (BackendOptions(base_url="https://api.example.com/v1/"), "ours"),
        (BackendOptions(provider="acme"), "ours"),
        (BackendOptions(base_url="https://evil.example"), ""),
        (BackendOptions(provider="other"), ""),
        (BackendOptions(base_url="https://evil.example", api_key="theirs"), "theirs"),
        (BackendOptions(api_key="theirs"), "theirs"),
    ],
)
def test_our_key_goes_nowhere_else(chosen: BackendOptions, key: str) -> None:
    """An address or provider of the client's choice gets the client's key or none."""
    assert key_for(chosen, OWN) == key


def test_without_a_key_of_ours_there_is_none() -> None:
    """No key anywhere is a blank one."""
    assert key_for(BackendOptions(), BackendOptions()) == ""


@pytest.mark.parametrize("base_url", ["http://h/v1", "http://h/v1/", " http://h/v1 "])
@pytest.mark.parametrize("path", ["chat", "/chat"])
def test_one_slash_joins_base_and_path(base_url: str, path: str) -> None:
    """However base and path are written, one slash stands between them."""
    assert endpoint(base_url, path) == "http://h/v1/chat"
