"""Any host that speaks OpenAI's chat completions: OpenAI, Groq, vLLM, Ollama, LM Studio and many more."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, Literal

import attrs
import httpx

from voice_fsm.chat.base import ChatRequest, ReplyPart
from voice_fsm.chat.choice import check_base_url, endpoint, key_for
from voice_fsm.chat.conversation import HistoryLimits, Message, chat_messages
from voice_fsm.chat.openai_stream import OpenAiStream
from voice_fsm.chat.openai_tools import OpenReply, tool_fields, with_tools
from voice_fsm.chat.reply import Reply
from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.fsm.options import BackendOptions
from voice_fsm.upstream.faults import RefusedError, bearer, provider_error
from voice_fsm.upstream.http import Answer, Deadlines, json_request
from voice_fsm.upstream.retry import RetryPolicy, open_answer_with_retries

_PATH: Final = "chat/completions"


@attrs.frozen(kw_only=True)
class OpenAiConfig:
    """Which host and model answer, and how they are asked."""

    base_url: str
    """With its version, such as ``https://api.openai.com/v1``; nothing is added to it but the path."""
    api_key: str = attrs.field(default="", repr=False)
    """Blank for hosts that ask for none."""
    model: str = ""
    system_prompt: str = ""
    temperature: float | None = None
    """``None`` leaves it to the host; reasoning models refuse any."""
    max_tokens: int | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """OpenAI's reasoning models refuse the first, Ollama and LM Studio ignore the second."""
    include_usage: bool = True
    """Ask for token counts; to be switched off for hosts that refuse ``stream_options``."""
    extra_body: Mapping[str, Any] = attrs.field(factory=dict)
    """Further fields of the request, such as ``reasoning_effort``."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Further headers, such as ``OpenAI-Organization``."""
    history: HistoryLimits = attrs.field(factory=HistoryLimits)
    allowed_base_urls: tuple[str, ...] = ()
    """Where a client's own ``backend.base_url`` may lead, beside ``base_url``."""
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)


class OpenAiChat:
    """Chat completions, streamed (`ChatProvider`). The host remembers nothing: the history goes along."""

    name = "openai"

    def __init__(self, client: httpx.AsyncClient, config: OpenAiConfig) -> None:
        self._client = client
        self._config = config

    def check(self, chosen: BackendOptions) -> None:
        """Say early whether a client's choice can be served.

        Raises:
            ClientError: ``backend.base_url`` is no address that is allowed.
        """
        if chosen.base_url is not None:
            check_base_url(chosen.base_url, (self._config.base_url, *self._config.allowed_base_urls))

    def forget(self, session_id: str) -> None:
        """Nothing is kept."""

    @asynccontextmanager
    async def reply(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        """Ask; see `ChatProvider.reply`.

        Raises:
            ProviderError: on entering or while iterating.
            ClientError: on entering: as `check`.
        """
        self.check(request.backend)
        messages = self._messages(request)
        async with AsyncExitStack() as stack:
            first = await self._open(stack, request, messages)
            if request.tools is None:
                yield first.reply
            else:
                ask_again = partial(self._open, request=request)
                yield await stack.enter_async_context(with_tools(first, messages, ask_again, request.tools))

    async def _open(
        self, stack: AsyncExitStack, request: ChatRequest, messages: Sequence[Message]
    ) -> OpenReply:
        answer = await self._ask(self._call(request, messages))
        stack.push_async_callback(answer.aclose)
        if answer.content_type != "text/event-stream":  # LM Studio: 200 for addresses it does not know
            raise answer.error(ProviderFault.BAD_RESPONSE)
        stream = OpenAiStream()
        wants_tools = request.tools is not None
        return OpenReply(
            Reply(answer, stream, may_be_silent=lambda: wants_tools and bool(stream.calls)), stream
        )

    async def _ask(self, call: httpx.Request) -> Answer:
        config = self._config
        try:
            return await open_answer_with_retries(
                self._client, call, upstream=Upstream.CHAT, deadlines=config.deadlines, policy=config.retry
            )
        except RefusedError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            path = call.url.path
            raise error.told_as(
                f"The chat backend has no {path}, or not the model asked for (HTTP 404)."
            ) from None

    def _call(self, request: ChatRequest, messages: Sequence[Message]) -> httpx.Request:
        chosen = request.backend
        own = BackendOptions(base_url=self._config.base_url, api_key=self._config.api_key)
        key = key_for(attrs.evolve(chosen, provider=None), own)
        return json_request(
            self._client,
            endpoint(chosen.base_url or self._config.base_url, _PATH),
            self._body(request, messages),
            {**self._config.headers, **bearer(Upstream.CHAT, key)},
        )

    def _messages(self, request: ChatRequest) -> list[Message]:
        chosen = request.backend.system_prompt
        prompt = self._config.system_prompt if chosen is None else chosen
        return chat_messages(request, prompt, self._config.history)

    def _body(self, request: ChatRequest, messages: Sequence[Message]) -> dict[str, Any]:
        config, chosen = self._config, request.backend
        model = chosen.model or config.model
        if not model:
            raise provider_error(
                Upstream.CHAT, ProviderFault.UNAVAILABLE, "No chat model is set on this server."
            )
        body: dict[str, Any] = {"model": model, "messages": list(messages), "stream": True}
        if request.tools is not None:
            body["tools"] = tool_fields(request.tools)
        if config.include_usage:
            body["stream_options"] = {"include_usage": True}
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.max_tokens is not None:
            body[config.max_tokens_field] = config.max_tokens
        return body | dict(config.extra_body)
