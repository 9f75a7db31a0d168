"""A client's settings in the words of our sessions, and what of them is in force."""

from typing import Any, Final

import attrs

from voice_fsm.chat.base import Tool
from voice_fsm.fsm.options import BackendOptions, SessionOptions, TtsOptions
from voice_fsm.runtime.agents import HostedAgent, fill
from voice_fsm.runtime.client_tools import ClientTool
from voice_fsm.web.realtime.errors import RealtimeRefusal
from voice_fsm.wire.openai_audio import BUILT_IN_VOICES
from voice_fsm.wire.realtime_session import OutputConfig, ResponseConfig, SessionConfig, TurnDetection

MAX_WAIT_MS: Final = {"low": 8000, "medium": 4000, "auto": 4000, "high": 2000}
"""How long an utterance that breaks off is waited upon, by eagerness, as at OpenAI."""
TOOL_WITHIN_S: Final = 60.0
"""How long a function's output is waited for."""


@attrs.frozen
class Terms:
    """What one client is served with, and how far it may choose."""

    hosted: HostedAgent
    model: str

    @property
    def may_instruct(self) -> bool:
        """Whether the client may say what the model is told, which its tools do too."""
        return "prompt" in self.hosted.agent.allowed_overrides

    def options(self, config: SessionConfig) -> SessionOptions:
        """The session's options."""
        base = self.hosted.agent.options(self.hosted.services.defaults)
        heard, detection = config.audio.input, config.audio.input.turn_detection
        language = heard.transcription.language if heard.transcription else None
        permitted = self.hosted.agent.allowed_overrides
        stt = attrs.evolve(
            base.stt,
            audio_format=heard.format.audio_format,
            commit_strategy=_commit_strategy(detection),
            language_code=language if language and "language" in permitted else base.stt.language_code,
        )
        turn = attrs.evolve(
            base.turn,
            first_message=None,
            barge_in="off",
            respond="asked",
            patience_ms=None,
            idle_prompt_s=None,
            pausable=False,
        )
        if detection is not None:
            silence_ms, idle_ms = detection.silence_duration_ms, detection.idle_timeout_ms
            is_ours = detection.type == "server_vad"
            if is_ours:
                stt = attrs.evolve(
                    stt,
                    vad_threshold=detection.threshold,
                    vad_silence_threshold_secs=None if silence_ms is None else silence_ms / 1000,
                )
            turn = attrs.evolve(
                turn,
                # Speech alone interrupts, as clients stop their players when they are told of it.
                barge_in="vad" if detection.interrupt_response else "off",
                decide_within_ms=0,
                respond="auto" if detection.create_response and config.type == "realtime" else "asked",
                patience_ms=None if is_ours else MAX_WAIT_MS[detection.eagerness],
                idle_prompt_s=idle_ms / 1000 if is_ours and idle_ms is not None else None,
            )
        tts = self._tts(base.tts, config.audio.output, is_text=config.is_text)
        return attrs.evolve(base, stt=stt, turn=turn, tts=tts, backend=self._backend(base, config))

    def reply_options(self, options: SessionOptions, response: ResponseConfig) -> SessionOptions:
        """Those of one reply."""
        output = response.audio.output if response.audio else None
        is_text = options.tts.silent
        if response.output_modalities is not None:
            is_text = response.output_modalities == ("text",)
        tts = attrs.evolve(options.tts, silent=is_text)
        if output is not None:
            tts = attrs.evolve(
                tts,
                voice_id=self._voice_id(tts, output.voice_id),
                output_format=output.format.audio_format if output.format else tts.output_format,
            )
        backend = options.backend
        if response.instructions is not None and self.may_instruct:
            backend = attrs.evolve(backend, system_prompt=response.instructions)
        return attrs.evolve(options, tts=tts, backend=backend)

    def tools(self, config: SessionConfig) -> tuple[ClientTool, ...] | None:
        """The client's tools; ``None``: the agent's stay, as it names none or may not have any.

        Raises:
            RealtimeRefusal: the chat cannot call any.
        """
        if config.tool_choice == "none":
            return ()
        if config.tools is None or not self.may_instruct:
            return None
        if config.tools and self.hosted.services.chat.name != "openai":
            raise RealtimeRefusal(
                "tools_not_supported",
                "The chat behind this server cannot call tools; it has to be OpenAI-compatible.",
                field="session.tools",
            )
        return tuple(
            ClientTool(
                tool=Tool(name=tool.name, description=tool.description, parameters=tool.parameters),
                timeout_s=TOOL_WITHIN_S,
            )
            for tool in config.tools
        )

    def shown(self, config: SessionConfig) -> dict[str, Any]:
        """The settings in force, as the client is shown them."""
        rules, heard = self.hosted.services.vad_rules, config.audio.input
        detection = heard.turn_detection
        audio: dict[str, Any] = {
            "input": {
                "format": heard.format.as_json(),
                "transcription": attrs.asdict(heard.transcription, filter=_is_set)
                if heard.transcription
                else None,
                "noise_reduction": attrs.asdict(heard.noise_reduction) if heard.noise_reduction else None,
                "turn_detection": detection and detection.as_json(rules.threshold, rules.silence_ms),
            }
        }
        if config.type == "transcription":
            return {"type": config.type, "audio": audio, "include": config.include}
        spoken = config.audio.output
        audio["output"] = {
            "format": spoken.format.as_json(),
            "voice": spoken.voice,
            "speed": 1 if spoken.speed is None else spoken.speed,
        }
        return {
            "type": config.type,
            "model": self.model,
            "output_modalities": list(config.output_modalities or ("audio",)),
            "instructions": (config.instructions or "") if self.may_instruct else "",
            "tools": [attrs.asdict(tool) for tool in config.tools or ()] if self.may_instruct else [],
            "tool_choice": config.tool_choice or "auto",
            "max_output_tokens": config.max_output_tokens or "inf",
            "tracing": config.tracing,
            "truncation": config.truncation or "auto",
            "prompt": config.prompt,
            "audio": audio,
            "include": config.include,
        }

    def _tts(self, base: TtsOptions, output: OutputConfig, *, is_text: bool) -> TtsOptions:
        voice_settings = base.voice_settings
        if output.speed is not None and "voice" in self.hosted.agent.allowed_overrides:
            voice_settings = attrs.evolve(voice_settings, speed=output.speed)
        return attrs.evolve(
            base,
            output_format=output.format.audio_format,
            voice_id=self._voice_id(base, output.voice_id),
            voice_settings=voice_settings,
            silent=is_text,
        )

    def _voice_id(self, base: TtsOptions, voice: str | None) -> str | None:
        """Names of OpenAI's voices mean its own default to another provider."""
        if voice is None or "voice" not in self.hosted.agent.allowed_overrides:
            return base.voice_id
        is_theirs = self.hosted.services.tts.name == "openai"
        return voice if is_theirs or voice not in BUILT_IN_VOICES else base.voice_id

    def _backend(self, base: SessionOptions, config: SessionConfig) -> BackendOptions:
        agent = self.hosted.agent
        prompt = agent.prompt and fill(agent.prompt, agent.dynamic_variables)
        if config.instructions is not None and self.may_instruct:
            prompt = config.instructions
        return attrs.evolve(base.backend, system_prompt=prompt)


def _commit_strategy(detection: TurnDetection | None) -> Any:  # noqa: ANN401  # a literal of `SttOptions`
    if detection is None:
        return "manual"
    return "local_vad" if detection.type == "server_vad" else "vad"


def _is_set(_: object, value: object) -> bool:
    return value is not None
