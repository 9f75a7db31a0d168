"""``voice-fsm check`` against upstreams that work, and that do not."""

from typing import get_args

import trio

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from voice_fsm.checkup import _VOICE_VARIABLES, _try_stt, check_upstreams
from voice_fsm.config import load_settings
from voice_fsm.fsm.options import SessionOptions, SttOptions
from voice_fsm.runtime.services import TtsName
from voice_fsm.runtime.session import Services

NOBODY = "http://127.0.0.1:9"


async def test_the_embedded_engines_pass() -> None:
    """With nothing set everything works, and says what it did."""
    findings = await check_upstreams(load_settings({}))
    assert [finding.ok for finding in findings] == [True, True, True]
    assert "listens" in findings[0].text
    assert "pcm_24000" in findings[2].text


async def test_each_upstream_that_fails_names_the_variable_to_look_at() -> None:
    """A sentence that a newcomer can act on, and never the key."""
    settings = load_settings(
        {
            "ELEVENLABS_API_KEY": "sk-very-secret",
            "ELEVENLABS_BASE_URL": NOBODY,
            "BACKEND_BASE_URL": NOBODY,
        }
    )
    with trio.fail_after(30):
        findings = await check_upstreams(settings)
    assert [finding.ok for finding in findings] == [False, False, False]
    assert "ELEVENLABS_BASE_URL" in findings[0].text
    assert "BACKEND_BASE_URL" in findings[1].text
    assert "ELEVENLABS_BASE_URL" in findings[2].text
    assert all("secret" not in finding.text for finding in findings)


async def test_the_recogniser_is_asked_for_what_sessions_ask_it_for() -> None:
    """Where the server ends utterances, the check asks for a manual link as sessions do."""
    stt = ScriptedStt()
    defaults = SessionOptions(stt=SttOptions(commit_strategy="local_vad"))
    await _try_stt(Services(stt=stt, chat=ScriptedChat(), tts=ScriptedTts(), defaults=defaults))
    assert [options.commit_strategy for options in stt.asked] == ["manual"]


def test_every_voice_has_variables_to_look_at() -> None:
    """The advice names settings that there are."""
    known = load_settings({}).masked()
    for provider in get_args(TtsName):
        if provider != "local":
            assert set(_VOICE_VARIABLES[provider]) <= known.keys()
