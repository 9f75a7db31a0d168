"""A customer's own chat backend: `POST /v1/register` once, then `POST /v1/chat` for each turn.

docs/backend.md tells its author what to build.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import attrs
import httpx

from voice_fsm.chat.backend_reply import decoder_for
from voice_fsm.chat.base import ChatRequest
from voice_fsm.chat.choice import check_base_url, endpoint, key_for
from voice_fsm.chat.registration import Registrations
from voice_fsm.chat.reply import Reply
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import BackendOptions
from voice_fsm.upstream.faults import RefusedError, bearer
from voice_fsm.upstream.http import Answer, Deadlines, JsonPost
from voice_fsm.upstream.retry import RetryPolicy, open_answer_with_retries

_MAX_REGISTRATION_BYTES: Final = 64 * 1024
_NO_SUCH_PATH: Final = frozenset({404, 405, 501})
_UNKNOWN: Final = frozenset({404, 410})
_PASSING: Final = frozenset({408, 429})


@attrs.frozen(kw_only=True)
class BackendFields:
    """What the backend calls the fields of its messages."""

    provider: str = "provider"
    api_key: str = "api_key"
    model: str = "model"
    base_url: str = "base_url"
    system_prompt: str = "system_prompt"
    registration_id: str = "registration_id"
    session_id: str = "session_id"
    message: str = "message"
    metadata: str = "metadata"
    reply: str | None = None
    """Where the text of its replies stands, if not in one of the usual places."""


@attrs.frozen(kw_only=True)
class BackendConfig:
    """Where the backend is, and how it wants to be spoken to."""

    base_url: str
    api_key: str = attrs.field(default="", repr=False)
    """The backend's own key, sent as a bearer token; blank: none is sent."""
    defaults: BackendOptions = BackendOptions()
    """What it is registered with, where a client chooses nothing; with a ``registration_id``, it is not."""
    register_path: str = "/v1/register"
    chat_path: str = "/v1/chat"
    fields: BackendFields = BackendFields()
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Further headers of each request."""
    send_history: bool = True
    """Whether each turn tells the conversation as it was heard, so that the backend need keep none."""
    allowed_base_urls: tuple[str, ...] = ()
    """What a client's own ``backend.base_url`` may be, beside that of ``defaults``."""
    registration_ttl_s: float = 3600.0
    max_registrations: int = 1000
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)


class BackendChat:
    """The backend of a customer (`ChatProvider`). Whether it remembers sessions is up to it."""

    name = "backend"

    def __init__(self, client: httpx.AsyncClient, config: BackendConfig) -> None:
        self._client = client
        self._config = config
        self._registrations = Registrations(
            ttl_s=config.registration_ttl_s, max_entries=config.max_registrations
        )
        self._posts: dict[str, JsonPost] = {}
        """By their path: made when they are first wanted, as a key that no header can hold is told then."""

    def check(self, chosen: BackendOptions) -> None:
        """Say early whether a client's choice can be served.

        Raises:
            ClientError: ``backend.base_url`` is no address that is allowed.
        """
        if chosen.base_url is not None:
            own = self._config.defaults.base_url
            check_base_url(chosen.base_url, (*([own] if own else []), *self._config.allowed_base_urls))

    def forget(self, session_id: str) -> None:
        """Nothing is kept."""

    @asynccontextmanager
    async def reply(self, request: ChatRequest) -> AsyncIterator[Reply]:
        """Ask; see `ChatProvider.reply`.

        Raises:
            ProviderError: on entering or while iterating.
            ClientError: on entering: as `check`.
        """
        self.check(request.backend)
        try:
            answer = await self._ask(request, self._options(request.backend))
        except RefusedError as error:
            raise self._refused_chat(error) from None
        async with aclosing(answer):
            yield Reply(answer, decoder_for(answer.content_type, self._config.fields.reply))

    def _options(self, chosen: BackendOptions) -> BackendOptions:
        """Fill a client's choice up with our defaults; our registration id stands only for all of them."""
        own = self._config.defaults
        if chosen.registration_id is not None:
            return BackendOptions(registration_id=chosen.registration_id)
        if chosen == BackendOptions():
            return own
        return BackendOptions(
            provider=chosen.provider or own.provider,
            api_key=key_for(chosen, own) or None,
            model=chosen.model or own.model,
            base_url=chosen.base_url or own.base_url,
            system_prompt=own.system_prompt if chosen.system_prompt is None else chosen.system_prompt,
        )

    async def _ask(self, request: ChatRequest, options: BackendOptions) -> Answer:
        """Chat under the registration that is set, or under one of ours.

        One of ours that the backend has forgotten is made anew, once.
        """
        if options.registration_id is not None:
            return await self._chat(request, options.registration_id)
        known = await self._registration_id(options)
        try:
            return await self._chat(request, known)
        except RefusedError as error:
            if not _may_mean_unknown_registration(error):
                raise
        self._registrations.forget(options, known)
        return await self._chat(request, await self._registration_id(options))

    async def _registration_id(self, options: BackendOptions) -> str:
        return await self._registrations.get(options, lambda: self._register(options))

    async def _register(self, options: BackendOptions) -> str:
        values = attrs.asdict(options, filter=lambda _, value: value is not None)
        body = {getattr(self._config.fields, name): value for name, value in values.items()}
        try:
            answer = await self._post(self._config.register_path, body)
        except RefusedError as error:
            raise self._refused_registration(error) from None
        async with aclosing(answer):
            return self._read_registration_id(answer, await answer.read_json(_MAX_REGISTRATION_BYTES))

    def _refused_registration(self, error: RefusedError) -> ProviderError:
        path = self._config.register_path
        if error.status in _NO_SUCH_PATH:
            return error.told_as(
                f"The chat backend has no POST {path}. Set BACKEND_REGISTRATION_ID on this server."
            )
        return error.told_as(f"The chat backend refused to register this server (HTTP {error.status}).")

    def _read_registration_id(self, answer: Answer, document: object) -> str:
        name = self._config.fields.registration_id
        value = document.get(name) if isinstance(document, dict) else None
        if isinstance(value, int) or (isinstance(value, str) and value):
            return str(value)
        raise answer.error(
            ProviderFault.BAD_RESPONSE, f"The chat backend registered this server without giving a {name}."
        )

    async def _chat(self, request: ChatRequest, registration_id: str) -> Answer:
        fields = self._config.fields
        body = {
            fields.registration_id: registration_id,
            fields.session_id: request.session_id,
            fields.message: request.text,
            fields.metadata: _metadata(request, with_history=self._config.send_history),
        }
        return await self._post(self._config.chat_path, body)

    async def _post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Send one request, again where that may help; the caller closes the answer."""
        config = self._config
        return await open_answer_with_retries(
            self._client,
            self._post_to(path).request(body),
            upstream=Upstream.CHAT,
            deadlines=config.deadlines,
            policy=config.retry,
        )

    def _post_to(self, path: str) -> JsonPost:
        if path not in self._posts:
            config = self._config
            headers = {**config.headers, **bearer(Upstream.CHAT, config.api_key)}
            self._posts[path] = JsonPost.to(self._client, endpoint(config.base_url, path), headers)
        return self._posts[path]

    def _refused_chat(self, error: RefusedError) -> ProviderError:
        if not _may_mean_unknown_registration(error):
            return error
        path = self._config.chat_path
        return error.told_as(
            f"The chat backend does not know its registration, or has no POST {path} (HTTP {error.status})."
        )


def _metadata(request: ChatRequest, *, with_history: bool) -> dict[str, Any]:
    """Tell the turn's number, what was heard so far, and whether the reply before was interrupted."""
    metadata: dict[str, Any] = {"turn_id": request.turn_id}
    if request.cause != "user":
        metadata["cause"] = request.cause
    if request.context:
        metadata["context"] = list(request.context)
    if with_history:
        metadata["history"] = [_written(exchange) for exchange in request.history]
    if request.history and request.history[-1].interrupted:
        metadata |= {"interrupted": True, "heard": request.history[-1].assistant}
    return metadata


def _written(exchange: Exchange) -> dict[str, Any]:
    return {"user": exchange.user, "assistant": exchange.assistant, "interrupted": exchange.interrupted}


def _may_mean_unknown_registration(error: RefusedError) -> bool:
    if error.status in _UNKNOWN:
        return True
    is_clients_fault = error.status is not None and 400 <= error.status < 500  # noqa: PLR2004  # 4xx
    return is_clients_fault and error.status not in _PASSING and error.mentions("registration")
