"""The whole runtime, with the adapters that the settings choose, against upstreams on loopback sockets."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import attrs
import httpx
import pytest
import trio

from tests.fakes.chat_backend import ChatBackend
from tests.fakes.elevenlabs import FakeElevenLabs, serve_elevenlabs
from tests.fakes.http_server import LAST_CHUNK, HttpServer, Step, chunk, chunked_head, serve_http
from tests.fakes.openai_chat import DONE, STOP, OpenAiHost, said
from tests.fakes.scripted import RecordingDoor
from tests.promises import check_promises
from voice_fsm.config import Settings, load_settings
from voice_fsm.fsm.effects import TurnEnded, TurnStarted
from voice_fsm.fsm.events import TextPrompt
from voice_fsm.runtime import services as wiring
from voice_fsm.runtime.outgoing import Item
from voice_fsm.runtime.services import open_services
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.upstream.http import open_client
from voice_fsm.upstream.http_pool import HttpPool
from voice_fsm.upstream.websocket import default_tls_context

T = TypeVar("T", bound=Item)

SENTENCE = "This is a sentence that is long enough for several chunks of audio."


def word(text: str) -> bytes:
    """One event of a streamed reply, that both kinds of chat backend write alike."""
    return chunk(said(text))


def streamed_reply(*steps: Step | str) -> list[Step]:
    """Write a whole streamed reply: text, and whatever comes between."""
    body = [word(step) if isinstance(step, str) else step for step in steps]
    return [chunked_head(), *body, chunk(STOP) + chunk(DONE) + LAST_CHUNK]


@attrs.define
class Chat:
    """Either kind of chat backend, with the same steps for an answer."""

    kind: str
    host: ChatBackend | OpenAiHost
    server: HttpServer

    @property
    def settings(self) -> dict[str, str]:
        return chat_settings(self.kind, self.server.url)

    def play(self, steps: list[Step]) -> None:
        """Answer so from now on."""
        if isinstance(self.host, ChatBackend):
            self.host.chatting = steps
        else:
            self.host.steps = steps


def chat_settings(kind: str, url: str) -> dict[str, str]:
    if kind == "backend":
        return {"BACKEND_BASE_URL": url, "BACKEND_API_KEY": "backend-key"}
    return {"LLM_BASE_URL": f"{url}/v1", "LLM_API_KEY": "llm-key", "LLM_MODEL": "m"}


@asynccontextmanager
async def serve_chat(kind: str = "backend") -> AsyncIterator[Chat]:
    """Run one that answers with `SENTENCE`, streamed."""
    host = ChatBackend() if kind == "backend" else OpenAiHost()
    async with serve_http(host) as server:
        chat = Chat(kind, host, server)
        chat.play(streamed_reply(SENTENCE))
        yield chat


@attrs.define
class Upstreams:
    """All that a session needs, and nothing wrong with it."""

    elevenlabs: FakeElevenLabs
    url: str
    chat: Chat

    @property
    def settings(self) -> dict[str, str]:
        return {**elevenlabs_settings(self.url), **self.chat.settings}


def elevenlabs_settings(url: str) -> dict[str, str]:
    return {
        "ELEVENLABS_API_KEY": "xi-key",
        "ELEVENLABS_BASE_URL": url,
        "ELEVENLABS_VOICE_ID": "voice-1",
    }


@asynccontextmanager
async def upstreams(kind: str = "backend") -> AsyncIterator[Upstreams]:
    fake = FakeElevenLabs()
    async with serve_elevenlabs(fake) as url, serve_chat(kind) as chat:
        yield Upstreams(fake, url, chat)


@attrs.define
class Pools:
    """The HTTP clients that services opened."""

    clients: list[httpx.AsyncClient] = attrs.field(factory=list)

    def busy(self) -> list[object]:
        """Connections, in all of their pools, that are not free to serve the next call."""
        pools = [client._transport for client in self.clients]
        return [connection for pool in pools if isinstance(pool, HttpPool) for connection in pool.busy]


def watch_pools(monkeypatch: pytest.MonkeyPatch) -> Pools:
    """Watch the HTTP clients of services that are opened from now on."""
    watched = Pools()

    def open_watched() -> httpx.AsyncClient:
        client = open_client(verify=default_tls_context(), trust_env=False)
        watched.clients.append(client)
        return client

    monkeypatch.setattr(wiring, "open_client", open_watched)
    return watched


async def nothing_left(up: Upstreams, pools: Pools, *, within_s: float = 3) -> None:
    """Wait until no connection to the services that speak and listen is left, and no HTTP call is under way.

    Those that wait for another reply may do so for two minutes.
    """
    with trio.fail_after(within_s):
        while up.elevenlabs.live_connections or pools.busy():
            await trio.sleep(0.01)
    with trio.fail_after(120 + within_s):
        await up.elevenlabs.tts.streams_gone()


def settings_of(*parts: dict[str, str]) -> Settings:
    environ = {"MAX_OCCUPANCY": "0"}  # the machine is shared with other tests
    for part in parts:
        environ |= part
    return load_settings(environ)


@asynccontextmanager
async def all_services(*settings: Settings) -> AsyncIterator[list[Services]]:
    """Open services for each of the settings."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_services(each, trio.Event())) for each in settings]


class Client(RecordingDoor):
    """A client that can wait for what it is told."""

    def __init__(self, act: Callable[["Client", VoiceSession], Awaitable[None]]) -> None:
        super().__init__(lambda session: act(self, session))
        self._told = trio.Event()
        self._asked = 0

    async def tell(self, items: Sequence[Item]) -> None:
        await super().tell(items)
        self._told.set()
        self._told = trio.Event()

    def all(self, kind: type[T]) -> list[T]:
        """All that it was told of this kind."""
        return [item for item in self.told if isinstance(item, kind)]

    def when(self, kind: type[T]) -> list[float]:
        """When it was told so, in seconds."""
        return [at for at, item in self.items if isinstance(item, kind)]

    async def until(self, kind: type[T], count: int = 1, *, where: Callable[[T], bool] = lambda _: True) -> T:
        """Wait until it was told so many of this kind; gives the last of them."""
        found: list[T] = []
        looked_at = 0
        while True:
            new, looked_at = self.items[looked_at:], len(self.items)
            found += [item for _, item in new if isinstance(item, kind) and where(item)]
            if len(found) >= count:
                return found[count - 1]
            await self._told.wait()

    async def ask(self, session: VoiceSession) -> TurnEnded:
        """Type a question, and wait for its turn to be over."""
        self._asked += 1
        text = f"Question {self._asked}"
        session.step(TextPrompt(at_s=trio.current_time(), text=text))
        turn = await self.until(TurnStarted, where=lambda item: item.text == text)
        return await self.until(TurnEnded, where=lambda item: item.turn_id == turn.turn_id)


async def converse(
    services: Services, act: Callable[[Client, VoiceSession], Awaitable[None]], *, within_s: float = 300
) -> Client:
    """Run one session; check that what was told keeps the promises."""
    client = Client(act)
    with trio.fail_after(within_s):
        await VoiceSession(services, client).run()
    check_promises(client.told)
    return client
