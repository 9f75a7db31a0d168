"""What docs/ tells the author of a backend is what the adapter does."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import yaml  # type: ignore[import-untyped]  # has no annotations
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # has no annotations
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.fakes.chat_backend import chat_backend
from voice_fsm.chat.backend import BackendChat, BackendConfig, BackendFields
from voice_fsm.chat.backend_reply import decoder_for
from voice_fsm.chat.backend_text import PIECE_KEYS, WHOLE_TEXT_KEYS
from voice_fsm.chat.base import ChatRequest, ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.errors import PROVIDER_FAULTS, ProviderError, ProviderFault
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import BackendOptions
from voice_fsm.upstream.http import open_client

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "backend.md").read_text(encoding="utf-8")
OPENAPI: dict[str, Any] = yaml.safe_load((DOCS / "backend.openapi.yaml").read_text(encoding="utf-8"))
INPUTS = BackendOptions(
    provider="acme", api_key="k", model="m", base_url="http://h", system_prompt="Be brief."
)
HISTORY = (Exchange("Hi", "Hello."), Exchange("Tell me", "Once upon ", interrupted=True))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(trust_env=False) as client:
        yield client


def validator(name: str) -> Any:
    """Make the validator of one schema; fields that it does not name are errors, to notice drift."""
    root = Resource.from_contents(OPENAPI, default_specification=DRAFT202012)
    schema = {"$ref": f"urn:backend#/components/schemas/{name}"}
    return Draft202012Validator(schema, registry=Registry().with_resource("urn:backend", root))


def test_the_schemas_are_schemas() -> None:
    """All schemas are well-formed, and all references lead somewhere."""
    assert OPENAPI["openapi"].startswith("3.1")
    for schema in OPENAPI["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in re.findall(r"'\$ref': '#/([\w/]+)'", str(OPENAPI)):
        place: Any = OPENAPI
        for step in reference.split("/"):
            place = place[step]


def test_paths_and_fields_are_the_adapters_defaults() -> None:
    """The paths are those of the settings, and each field of a message is described."""
    config = BackendConfig(base_url="http://h")
    assert list(OPENAPI["paths"]) == [config.register_path, config.chat_path]
    schemas = OPENAPI["components"]["schemas"]
    described = {*schemas["Registration"]["properties"], *schemas["Turn"]["properties"]}
    assert described == set(attrs.astuple(BackendFields())) - {None}


async def test_what_is_sent_is_what_is_described(client: httpx.AsyncClient) -> None:
    """Real requests fit the schemas, with and without a past."""
    async with chat_backend() as backend:
        chat = BackendChat(client, BackendConfig(base_url=backend.url, defaults=INPUTS))
        for history in ((), HISTORY[:1], HISTORY):
            await listen(chat, history=history)
    sent = [
        *(("Registration", request.json()) for request in backend.registrations),
        *(("Turn", request.json()) for request in backend.chats),
        *(("TurnMetadata", request.json()["metadata"]) for request in backend.chats),
    ]
    assert len(sent) == 7
    for name, body in sent:
        assert list(validator(name).iter_errors(body)) == []
        assert set(body) <= set(OPENAPI["components"]["schemas"][name]["properties"])


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Registered", {}),
        ("Registered", {"registration_id": ""}),
        ("Turn", {"registration_id": "r", "session_id": "s", "message": "m"}),
        ("TurnMetadata", {"turn_id": 1, "interrupted": True}),
        ("TurnMetadata", {"turn_id": 1, "history": [{"user": "u"}]}),
    ],
)
def test_the_schemas_can_refuse(name: str, body: object) -> None:
    """A schema that fits everything would prove nothing."""
    assert list(validator(name).iter_errors(body)) != []


CONTENT = OPENAPI["paths"]["/v1/chat"]["post"]["responses"]["200"]["content"]
EXAMPLES = [
    pytest.param(content_type, example["value"], id=f"{content_type}-{name}")
    for content_type, content in CONTENT.items()
    for name, example in content["examples"].items()
]


@pytest.mark.parametrize(("content_type", "value"), EXAMPLES)
def test_the_examples_of_replies_are_understood(content_type: str, value: Any) -> None:
    """Each example is read as the same greeting."""
    decoder = decoder_for(content_type)
    parts = decoder.feed(value.encode() if isinstance(value, str) else json.dumps(value).encode())
    assert text_of([*parts, *decoder.end()]) == "Hello there."


def test_the_places_of_text_are_listed() -> None:
    """Guide and schema list them in the order in which they are looked at."""
    schemas = OPENAPI["components"]["schemas"]
    for keys, description in ((WHOLE_TEXT_KEYS, schemas["Reply"]), (PIECE_KEYS, schemas["Piece"])):
        assert ", ".join(keys) in " ".join(description["description"].split())
        assert ", ".join(f"`{key}`" for key in keys) in " ".join(GUIDE.split())


def test_each_fault_of_chat_is_in_the_guide() -> None:
    """A backend's author finds each code that a client may be told."""
    own = {ProviderFault.UNAVAILABLE, ProviderFault.LOST}  # not of a backend that is called
    assert set(re.findall(r"`chat_(\w+)`", GUIDE)) == {fault.value for fault in set(PROVIDER_FAULTS) - own}


async def listen(chat: BackendChat, text: str = "Hi", history: tuple[Exchange, ...] = ()) -> list[ReplyPart]:
    request = ChatRequest(session_id="s", turn_id=1, text=text, history=history)
    async with chat.reply(request) as parts:
        return [part async for part in parts]


def text_of(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ReplyText))


@asynccontextmanager
async def reference_backend() -> AsyncIterator[str]:
    """Run docs/examples/reference_backend.py as its first lines say, on a socket that already listens."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        number = listener.fileno()
        command = [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--graceful-timeout", "0"]
        run = partial(
            trio.run_process,
            [*command, "--bind", f"fd://{number}", "reference_backend:app"],
            cwd=DOCS / "examples",
            env=os.environ | {"BACKEND_API_KEY": "secret"},
            pass_fds=[number],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            nursery.cancel_scope.cancel()


async def test_the_reference_backend_converses(client: httpx.AsyncClient) -> None:
    """The example streams, knows what was heard, bears interruptions, refuses wrong keys and unknown ids."""
    async with reference_backend() as url:
        chat = BackendChat(client, BackendConfig(base_url=url, api_key="secret", defaults=INPUTS))
        first = await listen(chat, "Hello")
        assert text_of(first) == "You said: Hello. You heard before: nothing. "
        assert len([part for part in first if isinstance(part, ReplyText)]) > 1
        assert first[-1] == ReplyMetadata({"messages": 2})
        second = await listen(chat, "Go on", HISTORY)
        assert text_of(second) == "You said: Go on. You heard before: Once upon (interrupted). "

        async with chat.reply(ChatRequest(session_id="s", turn_id=3, text="Hello")) as parts:
            assert await anext(parts) == ReplyText("You ")
        assert text_of(await listen(chat, "Again")).startswith("You said: Again.")

        with pytest.raises(ProviderError) as caught:
            await listen(BackendChat(client, BackendConfig(base_url=url, api_key="wrong", defaults=INPUTS)))
        assert caught.value.code == "chat_auth_failed"

        headers = {"Authorization": "Bearer secret"}
        registered = await client.post(f"{url}/v1/register", headers=headers, json={"model": "m"})
        assert list(validator("Registered").iter_errors(registered.json())) == []
        turn = {"registration_id": "unknown", "session_id": "s", "message": "m", "metadata": {"turn_id": 1}}
        refused = await client.post(f"{url}/v1/chat", headers=headers, json=turn)
        assert refused.status_code == 404
        assert (await client.post(f"{url}/v1/chat", json=turn)).status_code == 401
