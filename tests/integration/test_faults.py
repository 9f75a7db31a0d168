"""Each way in which an upstream can fail, through real adapters on real sockets, as the client sees it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.fakes import elevenlabs_stt as stt_fake
from tests.fakes.elevenlabs_stt import FakeSession, Moment, Utterance, report
from tests.fakes.elevenlabs_tts import Misfortune, Refuse, Report, Trouble
from tests.fakes.http_server import (
    Fault,
    Pause,
    Step,
    chunk,
    chunked_head,
    fail_name_lookups,
    failing_tls_port,
    json_response,
    refusing_port,
)
from tests.fakes.sockets import open_sockets
from tests.integration import fault_table
from tests.integration.fault_table import ASKED_S, ROWS, SHORT, Row, rows_of
from tests.integration.rig import (
    SENTENCE,
    Client,
    Pools,
    Upstreams,
    all_services,
    chat_settings,
    converse,
    elevenlabs_settings,
    nothing_left,
    settings_of,
    streamed_reply,
    upstreams,
    word,
)
from voice_fsm.audio.samples import ulaw_decode
from voice_fsm.config import Settings
from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.fsm.effects import (
    AudioEnded,
    AudioStarted,
    ErrorTold,
    SttStarted,
    TurnEnded,
    UtteranceCommitted,
)
from voice_fsm.fsm.options import SessionOptions, SttOptions
from voice_fsm.runtime.session import Services, VoiceSession

DEADLINES = {name: str(value) for name, value in SHORT.items()}
PCM_SECOND = ulaw_decode(b"\x42") * 16000  # a level that mu-law has, as which it may be kept for a new link
REFUSAL_HEADERS = {"Retry-After": str(int(ASKED_S))}
MANUAL = SessionOptions(stt=SttOptions(commit_strategy="manual"))

# --- addresses at which nobody answers ----------------------------------------------------------------


@asynccontextmanager
async def no_listener() -> AsyncIterator[str]:
    async with refusing_port() as port:
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def no_name() -> AsyncIterator[str]:
    fail_name_lookups()
    yield "http://upstream.invalid"


@asynccontextmanager
async def no_tls() -> AsyncIterator[str]:
    async with failing_tls_port() as port:
        yield f"https://127.0.0.1:{port}"


PLACES = {"refused": no_listener, "DNS failure": no_name, "TLS failure": no_tls}


@asynccontextmanager
async def services_with(row: Row, up: Upstreams) -> AsyncIterator[Services]:
    """Services whose one upstream is where the row says, and whose others are well."""
    well = settings_of(up.settings, DEADLINES)
    place = PLACES.get(row.fault)
    if place is None:
        async with all_services(well) as (services,):
            yield services
        return
    async with place() as url, all_services(well, _moved(row, up, url)) as (services, ill):
        yield attrs.evolve(services, **{row.upstream.value: getattr(ill, row.upstream.value)})


def _moved(row: Row, up: Upstreams, url: str) -> Settings:
    moved = chat_settings(up.chat.kind, url) if row.way == "chat" else elevenlabs_settings(url)
    return settings_of(up.settings, DEADLINES, moved)


def check_time(row: Row, took_s: float) -> None:
    """It took as long as the table says, less the jitter of pauses, more the test's own work."""
    assert took_s <= row.wait.seconds() + 0.3
    assert took_s >= 0.7 * row.wait.seconds() - 0.1


# --- the turn's upstreams -----------------------------------------------------------------------------


async def see_a_turn_fail(row: Row, up: Upstreams, pools: Pools, mend: Callable[[], None]) -> None:
    """Have one turn with the fault, and one after it; check all that the client is told."""
    times: list[float] = []
    states: list[str] = []

    async def act(client: Client, session: VoiceSession) -> None:
        session.configure("s1", session.options)
        await client.until(SttStarted)
        times.append(trio.current_time())
        await client.ask(session)
        times.append(trio.current_time())
        states.append(session.state)
        mend()
        await client.ask(session)
        states.append(session.state)

    async with services_with(row, up) as services:
        client = await converse(services, act)
        await nothing_left(up, pools)
    first, second = client.all(TurnEnded)
    assert first.outcome == "failed"
    assert second.outcome == ("failed" if row.fault in PLACES else "completed")
    assert states == ["listening", "listening"]
    errors = [error for error in client.all(ErrorTold) if error.turn_id == 1]
    assert [(error.code, error.retryable, error.fatal) for error in errors] == [
        (row.code, row.retryable, False)
    ]
    began = [item for item in client.all(AudioStarted) if item.turn_id == 1]
    assert bool(began) == row.speaking
    names = [type(item) for item in client.told if isinstance(item, AudioEnded | ErrorTold | TurnEnded)]
    assert names[: 2 + row.speaking] == [*[AudioEnded] * row.speaking, ErrorTold, TurnEnded]
    check_time(row, times[1] - times[0])


HEAD = chunked_head()
BEGUN: list[Step] = [HEAD, word(f"{SENTENCE} "), Pause(0.01)]
"""Enough for the voice to begin."""

DRIP: list[Step] = [word(f"{SENTENCE} "), Pause(2.5)]

CHAT_STEPS: dict[str, list[Step]] = {
    **{place: [] for place in PLACES},
    "401": [json_response({"error": "no"}, 401)],
    "422": [json_response({"error": "no"}, 422)],
    "429 with Retry-After": [json_response({"error": "no"}, 429, Retry_After=f"{ASKED_S:g}")],
    "429 with a Retry-After over 2 s": [json_response({"error": "no"}, 429, Retry_After="30")],
    "500": [json_response({"error": "no"}, 500)],
    "hang before the first byte": [HEAD, Fault.HANG],
    "hang midway": [*BEGUN, Fault.HANG],
    "reset before the first byte": [Fault.RESET],
    "reset midway": [*BEGUN, Fault.RESET],
    "truncated chunk": [*BEGUN, b"99\r\ndata: ", Fault.CLOSE],
    "garbage": [b"\x15\x03\x01 no HTTP\r\n\r\n"],
    "garbage midway": [*BEGUN, b"no chunk\r\n"],
    "clean close midway": [*BEGUN, b"0\r\n\r\n"],
    "empty reply": [HEAD, chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"],
    "slow drip": [HEAD, *DRIP * 20],
}


def test_every_fault_of_the_table_has_its_cause() -> None:
    """No row is left out of the tests below, and none of theirs out of the table."""
    assert CHAT_STEPS.keys() == rows_of("chat").keys()
    assert PLACES.keys() | SOCKET_TROUBLES.keys() == rows_of("tts over a WebSocket").keys()
    assert {"refused"} | HTTP_TROUBLES.keys() == rows_of("tts over HTTP").keys()
    assert PLACES.keys() | OPENING_FAULTS.keys() | LINK_FAULTS.keys() == rows_of("stt").keys()
    assert len({(row.way, row.fault) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("kind", ["backend", "openai"])
@pytest.mark.parametrize("row", rows_of("chat").values(), ids=rows_of("chat").keys())
async def test_faults_of_the_chat(autojump_clock: MockClock, pools: Pools, row: Row, kind: str) -> None:
    """The turn fails in time with the right code, the voice falls silent, the next turn works."""
    sockets_before = open_sockets()
    async with upstreams(kind) as up:
        up.chat.play(CHAT_STEPS[row.fault])
        await see_a_turn_fail(row, up, pools, lambda: up.chat.play(streamed_reply(SENTENCE)))
    assert open_sockets() <= sockets_before


KEY = {"status": "invalid_api_key", "message": "Invalid API key"}
MISSING = [{"loc": ["body", "text"], "msg": "Field required", "type": "missing"}]
BUSY = {"status": "too_many_concurrent_requests"}
HTTP_TROUBLES: dict[str, Misfortune] = {
    "401": Refuse(401, KEY),
    "422": Refuse(422, MISSING),
    "429 with Retry-After": Refuse(429, BUSY, headers=REFUSAL_HEADERS),
    "500": Refuse(500),
    "hang before the first byte": Trouble.HANG,
    "hang midway": Trouble.HANG_MIDWAY,
    "reset before the first byte": Trouble.RESET,
    "reset midway": Trouble.RESET_MIDWAY,
    "truncated chunk": Trouble.CUT_MIDWAY,
    "garbage": Trouble.GARBAGE,
    "clean close midway": Trouble.CLOSE_MIDWAY,
    "slow drip": Trouble.DRIP,
}
SOCKET_TROUBLES: dict[str, Misfortune] = {
    **{fault: trouble for fault, trouble in HTTP_TROUBLES.items() if fault != "truncated chunk"},
    "truncated frame": Trouble.CUT_MIDWAY,
    "wrong key, told on the open socket": Report("invalid_api_key", "Invalid API key"),
    "hang in the handshake": Trouble.HANG_IN_HANDSHAKE,
    "garbage midway": Trouble.BAD_JSON_MIDWAY,
    "no audio at all": Trouble.NO_AUDIO,
}
VOICE_ROWS = [row for row in ROWS if row.upstream is Upstream.TTS]


@pytest.mark.parametrize("row", VOICE_ROWS, ids=lambda row: f"{row.way}: {row.fault}")
async def test_faults_of_the_voice(autojump_clock: MockClock, pools: Pools, row: Row) -> None:
    """The turn fails in time with the right code, audio that began is ended, the next turn works."""
    sockets_before = open_sockets()
    over_http = row.way == "tts over HTTP"
    troubles = HTTP_TROUBLES if over_http else SOCKET_TROUBLES
    async with upstreams() as up:
        # A reply that is there within milliseconds is known as a whole.
        up.chat.play(streamed_reply(SENTENCE) if over_http else streamed_reply(Pause(0.05), SENTENCE))
        voice = up.elevenlabs.tts
        if row.fault not in PLACES:
            voice.troubles.extend([troubles[row.fault]] * 5)
        await see_a_turn_fail(row, up, pools, voice.troubles.clear)
        assert not (voice.streams if over_http else voice.requests)
    assert open_sockets() <= sockets_before


# --- the recogniser -----------------------------------------------------------------------------------


@attrs.frozen
class Opening:
    """What keeps a link from being opened, for good."""

    moment: stt_fake.Action | None = None
    refusal: tuple[int, dict[str, str]] | None = None
    deaf: bool = False
    garbage: bool = False


OPENING_FAULTS = {
    "401": Opening(refusal=(401, {})),
    "wrong key, told on the open link": Opening(report("auth_error")),
    "422": Opening(refusal=(422, {})),
    "429 with Retry-After": Opening(refusal=(429, REFUSAL_HEADERS)),
    "500": Opening(refusal=(500, {})),
    "hang in the handshake": Opening(deaf=True),
    "hang before the session starts": Opening(stt_fake.stay_silent),
    "clean close before the session starts": Opening(stt_fake.close(1000)),
    "garbage in the handshake": Opening(garbage=True),
}


async def cut_a_frame(session: FakeSession) -> None:
    """Announce more than comes before the connection ends."""
    await session.stream.send_all(b"\x81\x7e\x10\x00only a part")
    await trio.aclose_forcefully(session.stream)


LINK_FAULTS = {
    "hang midway": stt_fake.stay_silent,
    "reset midway": stt_fake.break_off,
    "truncated frame": cut_a_frame,
    "garbage midway": stt_fake.send_garbage,
    "clean close midway": stt_fake.close(1000),
    "session time limit": report("session_time_limit_exceeded"),
    "slow drip of an answer": stt_fake.drip_out(
        {"message_type": "committed_transcript", "text": "Good morning."}, pause_s=0.1
    ),
}
OPENING_ROWS = [row for row in rows_of("stt").values() if row.told is not None]
LINK_ROWS = [row for row in rows_of("stt").values() if row.told is None]


@pytest.mark.parametrize("row", OPENING_ROWS, ids=lambda row: row.fault)
async def test_a_recogniser_that_cannot_be_had(autojump_clock: MockClock, pools: Pools, row: Row) -> None:
    """One error in time; what is typed is answered before and after; nothing keeps trying."""
    sockets_before = open_sockets()
    states: list[str] = []

    async def act(client: Client, session: VoiceSession) -> None:
        session.configure("s1", session.options)
        assert (await client.ask(session)).outcome == "completed"
        await client.until(ErrorTold)
        states.append(session.state)
        tried = len(up.elevenlabs.stt.sessions)
        session.hear(PCM_SECOND)
        await trio.sleep(60)
        assert (await client.ask(session)).outcome == "completed"
        states.append(session.state)
        assert len(up.elevenlabs.stt.sessions) == tried

    async with upstreams() as up:
        up.chat.play(streamed_reply("Fine."))
        break_openings(up, row)
        async with services_with(row, up) as services:
            client = await converse(services, act)
            await nothing_left(up, pools)
    assert open_sockets() <= sockets_before
    (error,) = client.all(ErrorTold)
    assert (error.code, error.retryable, error.turn_id, error.fatal) == (row.code, row.retryable, None, False)
    assert states == ["listening", "listening"]
    (told_s,) = client.when(ErrorTold)
    took_s = told_s - client.items[0][0]
    # A pause that would end after the deadline is not waited for.
    assert 0.4 * row.wait.seconds() - 0.1 <= took_s <= row.wait.seconds() + 0.3


def break_openings(up: Upstreams, row: Row) -> None:
    if row.fault in PLACES:
        return
    fault, service = OPENING_FAULTS[row.fault], up.elevenlabs.stt
    if fault.refusal is not None:
        service.refusals.extend([fault.refusal] * 100)
    if fault.moment is not None:
        service.moments.append(Moment("start", fault.moment, always=True))
    up.elevenlabs.deaf = fault.deaf
    up.elevenlabs.garbled = fault.garbage


@pytest.mark.parametrize("row", LINK_ROWS, ids=lambda row: row.fault)
async def test_a_link_that_breaks_midway(autojump_clock: MockClock, pools: Pools, row: Row) -> None:
    """The utterance under way is committed all the same, once, and answered; the client sees no error."""
    sockets_before = open_sockets()
    times: list[float] = []

    async def act(client: Client, session: VoiceSession) -> None:
        session.configure("s1", MANUAL)
        await client.until(SttStarted)
        session.hear(PCM_SECOND)
        session.commit_audio()
        times.append(trio.current_time())
        await client.until(UtteranceCommitted)
        times.append(trio.current_time())
        await client.until(TurnEnded)
        assert session.state == "listening"

    async with upstreams() as up:
        service = up.elevenlabs.stt
        service.utterances.append(Utterance("Good morning."))
        service.moments.append(Moment("commit", LINK_FAULTS[row.fault]))
        async with services_with(row, up) as services:
            client = await converse(services, act)
            await nothing_left(up, pools)
    assert open_sockets() <= sockets_before
    assert [item.text for item in client.all(UtteranceCommitted)] == ["Good morning."]
    assert [item.outcome for item in client.all(TurnEnded)] == ["completed"]
    assert not client.all(ErrorTold)
    dripping = row.fault == "slow drip of an answer"
    assert len(client.all(SttStarted)) == len(service.sessions) == (1 if dripping else 2)
    assert all(bytes(session.audio).startswith(PCM_SECOND) for session in service.sessions)
    assert times[1] - times[0] <= row.wait.seconds() + 0.3


# --- the page -----------------------------------------------------------------------------------------


def test_the_page_shows_the_table_that_is_tested() -> None:
    """docs/operations.md is fresh; the command of `fault_table` writes it."""
    page = fault_table.PAGE.read_text(encoding="utf-8")
    assert fault_table.tables() in page
    assert fault_table.rewritten(page) == page


def test_a_changed_row_changes_the_page() -> None:
    """The written part is replaced, and nothing else."""
    page = f"before\n{fault_table.BEGIN}\nold\n{fault_table.END}\nafter\n"
    assert fault_table.rewritten(page) == f"before\n{fault_table.tables()}\nafter\n"
    assert ProviderFault.STALLED in fault_table.tables()
