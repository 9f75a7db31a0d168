"""Lines to JSON and back, for every event and effect there is."""

import json
from collections.abc import Mapping
from keyword import iskeyword
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.recording.sessions import API_KEY
from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.effects import Effect, EnsureStt, StartTurn
from voice_fsm.fsm.events import AnyEvent, Committed, Configure, Disconnect, Partial
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import BackendOptions, SessionOptions, SttOptions
from voice_fsm.recording.codec import TAG, Codec, NotALine, mask
from voice_fsm.recording.lines import ForeignEffect, Step

STEP = '{"is":"Step","event":{"is":"Tick","at_s":0},"effects":['
PLAIN, REDACTED = Codec("plain"), Codec("redacted")

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    NoneType: st.none(),
    AudioFormat: st.sampled_from(["pcm_16000", "ulaw_8000", "mp3_44100_128"]).map(AudioFormat.parse),
}


def anything(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of an annotated type, secrets and fields with defaults included."""
    if kind in LEAVES:
        return LEAVES[kind]
    if attrs.has(kind):
        fields = {field.name: anything(field.type) for field in attrs.fields(kind) if field.repr is not False}
        return st.builds(kind, **fields)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of(*map(anything, arguments))
    if origin is tuple:
        return st.lists(anything(arguments[0]), max_size=3).map(tuple)
    assert origin is Mapping, f"{kind} needs a strategy here, and maybe a rule in the codec"
    return st.dictionaries(st.text(), JSON, max_size=3)


def steps(member: Any) -> st.SearchStrategy[Step]:
    if member in get_args(AnyEvent):
        return anything(member).map(lambda event: Step(event=event))
    return anything(member).map(lambda effect: Step(event=Disconnect(at_s=0.0), effects=(effect,)))


MEMBERS = [*get_args(AnyEvent), *get_args(Effect)]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda cls: cls.__name__)
def test_every_member_comes_back_as_it_was(member: Any) -> None:
    """A new class needs no change in the codec. What was redacted is redacted no further: see `replay`."""

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(steps(member))
    def comes_back(step: Step) -> None:
        assert PLAIN.decode(PLAIN.encode(step).encode()) == step
        once = REDACTED.encode(step)
        assert REDACTED.encode(REDACTED.decode(once.encode())) == once

    comes_back()


def test_a_line_is_one_line_of_ascii_with_its_class_in_front() -> None:
    """Whatever stands in a text."""
    line = PLAIN.encode(Step(event=Partial(at_s=1.5, text="a\nb\u2028\ud83d")))
    assert (
        line
        == '{"is":"Step","event":{"is":"Partial","at_s":1.5,"text":"a\\nb\\u2028\\ud83d"},"effects":[]}\n'
    )


@pytest.mark.parametrize("codec", [PLAIN, REDACTED])
def test_keys_are_never_written(codec: Codec) -> None:
    """Neither in events nor in effects, whether texts are redacted or not."""
    options = SessionOptions(backend=BackendOptions(api_key=API_KEY, model="m"))
    start = StartTurn(turn_id=1, text="hi", session_id="s", history=(), options=options)
    line = codec.encode(Step(event=Configure(at_s=0, session_id="s", options=options), effects=(start,)))
    assert API_KEY not in line
    assert json.loads(line)["event"]["options"]["backend"] == {"api_key": "***", "model": "m"}


def test_redacted_lines_keep_the_shape_of_texts_and_no_word() -> None:
    """Words keep their number and length; ids and choices stay."""
    start = StartTurn(
        turn_id=1,
        text="Grüße, Anna 42!",
        session_id="call-7",
        history=(Exchange("My PIN", "is 1234."),),
        options=SessionOptions(backend=BackendOptions(system_prompt="Be kind.")),
    )
    document = json.loads(
        REDACTED.encode(Step(event=Committed(at_s=0, text="e\u0301te\u0301"), effects=(start,)))
    )
    assert document["event"]["text"] == "xxxxx"
    (effect,) = document["effects"]
    assert effect["text"] == "xxxxx, xxxx xx!"
    assert effect["history"] == [{"user": "xx xxx", "assistant": "xx xxxx.", "interrupted": False}]
    assert effect["session_id"] == "call-7"
    assert effect["options"]["backend"] == {"system_prompt": "xx xxxx."}
    assert effect["options"]["stt"]["commit_strategy"] == "vad"


@given(st.text())
def test_a_mask_keeps_length_and_word_borders(text: str) -> None:
    """So cutting and joining texts gives the same before and after."""
    assert len(mask(text)) == len(text)
    assert list(map(len, mask(text).split())) == list(map(len, text.split()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\ud800".encode("utf-8", "surrogatepass"), "is not JSON"),
        ("[]", "must be an object with its class as `is`"),
        ('{"is":"Foo"}', "is a 'Foo', which this version does not know"),
        ('{"is":"Lost"}', "required field missing (at steps)"),
        ('{"is":"Lost","steps":"7"}', "must be of type int (at steps)"),
        ('{"is":"Lost","steps":7,"why":1}', "extra fields found (why)"),
        ('{"is":"Step","event":{"is":"Foo"},"effects":[]}', "which this version does not know (at event)"),
        ('{"is":"Step","event":{"is":"Partial","at_s":"x","text":"a"}}', "must be a number (at event.at_s)"),
        (STEP + "7]}", "(at effects[0])"),
        ('{"is":"End","reason":"boredom"}', "(at reason)"),
    ],
)  # fmt: skip
def test_what_is_no_line_is_refused_with_its_place(text: str | bytes, why: str) -> None:
    """A sentence says what is wrong, and where."""
    with pytest.raises(NotALine) as caught:
        PLAIN.decode(text.encode() if isinstance(text, str) else text)
    assert why in str(caught.value)


def test_what_is_not_json_cannot_be_written() -> None:
    """The recorder gives such a recording up rather than write what cannot be read."""
    with pytest.raises(ValueError, match="JSON"):
        PLAIN.encode(Step(event=Disconnect(at_s=float("nan"))))


def test_a_name_tells_one_class() -> None:
    """And no field can be called like the tag."""
    assert len({cls.__name__ for cls in MEMBERS}) == len(MEMBERS)
    assert iskeyword(TAG)


@pytest.mark.parametrize(
    "document",
    [{"is": "Applause"}, {"is": "CancelTurn"}, {"is": "EnsureStt", "options": {"audio_format": "pcm_7"}}],
)
def test_an_effect_of_another_version_is_kept_as_it_is(document: dict[str, Any]) -> None:
    """Its event can still be stepped, and the effect differs from whatever comes out."""
    line = (STEP + json.dumps(document, separators=(",", ":")) + "]}\n").replace('"at_s":0', '"at_s":0.0')
    step = PLAIN.decode(line.encode())
    assert isinstance(step, Step)
    assert step.effects == (ForeignEffect(document),)
    assert PLAIN.encode(step) == line


def test_a_field_that_is_new_takes_its_default() -> None:
    """Older recordings can be read as long as what is missing has a default."""
    line = b'{"is":"Step","event":{"is":"Tick","at_s":0},"effects":[{"is":"EnsureStt","options":{}}]}'
    assert PLAIN.decode(line) == Step(event=_tick(), effects=(EnsureStt(SttOptions()),))


def _tick() -> AnyEvent:
    decoded = PLAIN.decode(b'{"is":"Step","event":{"is":"Tick","at_s":0}}')
    assert isinstance(decoded, Step)
    return decoded.event
