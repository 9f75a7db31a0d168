import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.wire import codec
from voice_fsm.wire.converter import FieldError


@attrs.frozen(kw_only=True)
class Inner:
    depth: int


def _even(_: object, attribute: "attrs.Attribute[int]", value: int | None) -> None:
    if value is not None and value % 2:
        raise FieldError("must be even", field=attribute.name)


@attrs.frozen(kw_only=True)
class Sample:
    type: ClassVar[str] = "sample"
    text: str | None = None
    count: int | None = None
    even: int | None = attrs.field(default=None, validator=_even)
    ratio: float | None = None
    flag: bool | None = None
    choice: Literal["a", 1] | None = None
    label: str | int | None = None
    audio: bytes | None = None
    format: AudioFormat | None = None
    inner: Inner | None = None
    inners: tuple[Inner, ...] | None = None
    extra: Mapping[str, Any] | None = None
    scalars: Mapping[str, str | int | bool] | None = None
    measure: str | int | float | None = None
    class_: str | None = None


@attrs.frozen(kw_only=True)
class Other:
    type: ClassVar[str] = "other"
    needed: str
    nullable: int | None


DIALECT: codec.Dialect[Sample | Other] = codec.Dialect((Sample, Other))

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


def fault_of(text: str | bytes) -> ClientError:
    with pytest.raises(ClientError) as caught:
        DIALECT.decode(text)
    return caught.value


def sample_json(**fields: Any) -> str:
    return json.dumps({"type": "sample", **fields})


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [
        ("text", "5", "5"),
        ("text", "", ""),
        ("count", -3, -3),
        ("ratio", 1.5, 1.5),
        ("ratio", 2, 2.0),
        ("flag", False, False),
        ("choice", "a", "a"),
        ("choice", 1, 1),
        ("label", "x", "x"),
        ("label", 7, 7),
        ("audio", "", b""),
        ("audio", "AAH/", b"\x00\x01\xff"),
        ("audio", "AA==", b"\x00"),
        ("format", "mp3_44100_128", AudioFormat("mp3", 44100, 128)),
        ("inner", {"depth": 1}, Inner(depth=1)),
        ("inners", [{"depth": 1}, {"depth": 2}], (Inner(depth=1), Inner(depth=2))),
        ("inners", [], ()),
        ("extra", {"a": [None, {"b": 1.5}]}, {"a": [None, {"b": 1.5}]}),
        ("scalars", {"a": "x", "b": 1, "c": True}, {"a": "x", "b": 1, "c": True}),
    ],
)
def test_value_of_the_right_type_is_taken_as_it_is(field: str, given: Any, value: Any) -> None:
    """A value of its field's own type comes through, with that type."""
    message = DIALECT.decode(sample_json(**{field: given}))
    assert getattr(message, field) == value
    assert type(getattr(message, field)) is type(value)


@pytest.mark.parametrize(
    ("field", "given", "path", "must"),
    [
        ("text", 5, "text", "must be a string"),
        ("text", True, "text", "must be a string"),
        ("text", ["a"], "text", "must be a string"),
        ("count", "5", "count", "must be a whole number"),
        ("count", 5.0, "count", "must be a whole number"),
        ("count", True, "count", "must be a whole number"),
        ("even", 3, "even", "must be even"),
        ("ratio", "1.0", "ratio", "must be a number"),
        ("ratio", False, "ratio", "must be a number"),
        ("flag", 1, "flag", "must be true or false"),
        ("flag", "true", "flag", "must be true or false"),
        ("choice", "b", "choice", 'must be one of "a", 1'),
        ("choice", True, "choice", 'must be one of "a", 1'),
        ("choice", 1.0, "choice", 'must be one of "a", 1'),
        ("choice", {}, "choice", 'must be one of "a", 1'),
        ("label", True, "label", "must be a string or a whole number"),
        ("label", [], "label", "must be a string or a whole number"),
        ("format", "pcm_11025", "format", "must be an audio format such as pcm_24000"),
        ("format", 24000, "format", "must be a string"),
        ("audio", 5, "audio", "must be a string"),
        ("inner", "depth", "inner", "must be an object"),
        ("inner", [["depth", 1]], "inner", "must be an object"),
        ("inner", {}, "inner.depth", "is required"),
        ("inner", {"depth": None}, "inner.depth", "is required"),
        ("inner", {"depth": "1"}, "inner.depth", "must be a whole number"),
        ("inners", "ab", "inners", "must be a list"),
        ("inners", {"0": {"depth": 1}}, "inners", "must be a list"),
        ("inners", [{"depth": 1}, {"depth": "2"}, {}], "inners.1.depth", "must be a whole number"),
        ("inners", [{"depth": 1}, None], "inners.1", "must be an object"),
        ("extra", [["a", 1]], "extra", "must be an object"),
        (
            "scalars",
            {"a": "x", "b": None},
            "scalars.b",
            "must be a string or a whole number or true or false",
        ),
        ("scalars", {"k" * 1000: []}, "scalars." + "k" * 60, "must be a string"),
        ("class", 1, "class", "must be a string"),
    ],
)
def test_value_of_another_type_is_refused_by_its_path(field: str, given: Any, path: str, must: str) -> None:
    """Nothing is converted: the error names the way to the value and says what it must be."""
    error = fault_of(sample_json(**{field: given}))
    assert error.fault is ClientFault.INVALID_FIELD
    assert error.field == path
    assert error.message.startswith(f"`{path}` {must}")


def test_the_first_wrong_field_is_named() -> None:
    """Of several mistakes the first is told, in the order in which the message class lists its fields."""
    error = fault_of('{"type":"sample","flag":1,"inner":{"depth":""},"count":"x"}')
    assert error.field == "count"


@pytest.mark.parametrize(
    "audio",
    [
        "A",
        "AAA",
        "AA=",
        "AA==AA==",
        "AAA=AAA=",
        "AA A",
        "AAA\n",
        "=AAA",
        "AA-_",
        "é===",
        "AAAA=",
        "AAAA====",
        "====",
    ],
)
def test_base64_that_is_not_exact_is_invalid_audio(audio: str) -> None:
    """Audio that a lenient decoder would cut or guess at is refused."""
    error = fault_of(sample_json(audio=audio))
    assert (error.fault, error.field) == (ClientFault.INVALID_AUDIO, "audio")


def test_unknown_fields_are_ignored() -> None:
    """A newer client's additions do no harm, at any depth."""
    message = DIALECT.decode('{"type":"sample","new":{"a":[1]},"inner":{"depth":1,"new":null}}')
    assert message == Sample(inner=Inner(depth=1))


def test_null_is_the_same_as_leaving_out() -> None:
    """An optional field may be null; a required one is missing then."""
    assert DIALECT.decode('{"type":"sample","count":null,"inner":null}') == Sample()
    error = fault_of('{"type":"other","needed":null,"nullable":1}')
    assert (error.fault, error.field) == (ClientFault.INVALID_FIELD, "needed")


@pytest.mark.parametrize("name", ["no.such", "", "Sample", "sample ", "x" * 5000])
def test_unknown_type_is_named_in_the_error(name: str) -> None:
    """The peer learns which type nobody knows, shortened when it is long."""
    error = fault_of(json.dumps({"type": name}))
    assert error.fault is ClientFault.UNKNOWN_TYPE
    assert repr(name[:60]) in error.message
    assert len(error.message) < 120


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value at character 0"),
        ("{", "property name"),
        ('{"type":"sample"} x', "Extra data"),
        ("\ufeff{}", "Expecting value"),
        ('"sample"', "not a JSON object"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("{}", "no `type`"),
        ('{"type":null}', "no `type`"),
        ('{"type":5}', "no `type`"),
        ('{"type":["sample"]}', "no `type`"),
        ('{"type":"sample","type":"sample"}', "same key twice"),
        ('{"type":"sample","inner":{"depth":1,"depth":2}}', "same key twice"),
        ('{"type":"sample","ratio":NaN}', "holds NaN"),
        ('{"type":"sample","ratio":-Infinity}', "holds -Infinity"),
        ('{"type":"sample","ratio":1e999}', "too large"),
        ('{"type":"sample","ratio":-1e999}', "too large"),
        ('{"type":"sample","count":' + "9" * 20 + "}", "too large"),
        ('{"type":"sample","count":' + "9" * 5000 + "}", "too large"),
        ('{"type":"sample","text":"\\ud83d"}', "not well-formed Unicode"),
        ('{"type":"sample","\\udc00":1}', "not well-formed Unicode"),
        ('{"type":"sample","text":"\ud83d"}', "not well-formed Unicode"),
        ('{"type":"sample","text":"a\nb"}', "Invalid control character"),
        ('{"type":"sample","x":' + "[" * 100_000, "nested too deeply"),
        ('{"type":"sample","x":' + '{"a":' * 100_000, "nested too deeply"),
        (b"\xff\xfe", "not well-formed Unicode"),
        ('{"type":"sample"}'.encode("utf-16"), "not well-formed Unicode"),
    ],
)
def test_frame_that_is_not_a_tagged_object_is_malformed(text: str | bytes, why: str) -> None:
    """Whatever JSON parsers disagree about, and whatever has no type, is refused with its reason."""
    error = fault_of(text)
    assert error.fault is ClientFault.MALFORMED_MESSAGE
    assert why in error.message
    assert len(error.message) < 120


def test_surrogate_pair_is_one_character() -> None:
    """Escaped pairs are legal JSON; only halves are not."""
    assert DIALECT.decode('{"type":"sample","text":"\\ud83d\\ude00"}') == Sample(text="😀")


def test_bytes_are_read_as_utf8() -> None:
    """A frame may come as bytes."""
    assert DIALECT.decode('{"type":"sample","text":"é"}'.encode()) == Sample(text="é")


def test_long_list_of_errors_ends_at_the_first() -> None:
    """A frame full of mistakes costs one error, not one for each mistake."""
    refused = []

    def refuse(_: object, attribute: "attrs.Attribute[int]", value: int) -> None:
        refused.append(value)
        raise FieldError("must not be", field=attribute.name)

    @attrs.frozen
    class Item:
        number: int = attrs.field(validator=refuse)

    @attrs.frozen
    class Items:
        type: ClassVar[str] = "items"
        items: tuple[Item, ...]

    items = [{"number": number} for number in range(3)]
    with pytest.raises(ClientError) as caught:
        codec.Dialect((Items,)).decode(json.dumps({"type": "items", "items": items}))
    assert caught.value.field == "items.0.number"
    assert refused == [0]


def test_errors_do_not_repeat_the_value() -> None:
    """What was sent may be a secret; the error does not hold it, nor does its chain."""
    error = fault_of(sample_json(choice="sk-secret", text=["sk-secret"], format="sk-secret"))
    assert "sk-secret" not in repr(error)
    assert error.__suppress_context__


def test_mistake_of_our_own_is_not_blamed_on_the_peer() -> None:
    """An exception that is no `FieldError` passes, as it is a bug."""

    def broken(_: object, __: object, ___: int) -> None:
        raise ZeroDivisionError

    @attrs.frozen
    class Broken:
        type: ClassVar[str] = "broken"
        value: int = attrs.field(validator=broken)

    with pytest.raises(ZeroDivisionError):
        codec.Dialect((Broken,)).decode('{"type":"broken","value":1}')


def test_optional_fields_that_are_none_are_left_out() -> None:
    """A field whose default is None goes out only with a value; one without a default goes out as null."""
    assert codec.encode(Sample()) == '{"type":"sample"}'
    assert codec.encode(Other(needed="x", nullable=None)) == '{"type":"other","needed":"x","nullable":null}'


def test_encoding_writes_type_then_envelope_then_fields() -> None:
    """Frames are compact, and their wire names are those of the protocol, keywords included."""
    message = Sample(
        count=1,
        audio=b"\x00",
        format=AudioFormat("pcm", 8000),
        inners=(Inner(depth=2),),
        extra={"a": None},
        class_="k",
    )
    assert codec.encode(message, seq=7) == (
        '{"type":"sample","seq":7,"count":1,"audio":"AA==","format":"pcm_8000",'
        '"inners":[{"depth":2}],"extra":{"a":null},"class":"k"}'
    )


def test_half_a_character_passes_through_a_frame() -> None:
    """Streamed text can break inside a surrogate pair; the frame is still ASCII."""
    assert codec.encode(Sample(text="\ud83d")).isascii()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_that_json_does_not_have_is_not_written(value: float) -> None:
    """NaN would make the frame unreadable for the peer."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.encode(Sample(ratio=value))


@given(st.binary() | st.text() | ANY_JSON.map(json.dumps))
def test_any_input_gives_a_message_or_a_client_error(data: str | bytes) -> None:
    """No frame whatever raises anything but `ClientError`."""
    try:
        message = DIALECT.decode(data)
    except ClientError:
        return
    assert isinstance(message, Sample | Other)


@given(st.sampled_from([field.name.rstrip("_") for field in attrs.fields(Sample)]), ANY_JSON)
def test_any_value_in_any_field_gives_a_message_or_a_client_error(field: str, value: Any) -> None:
    """No value in a field of a known message raises anything but `ClientError`, and that names the field."""
    error = None
    try:
        DIALECT.decode(sample_json(**{field: value}))
    except ClientError as refusal:
        error = refusal
    if error is not None and error.fault is ClientFault.INVALID_FIELD:
        assert error.field is not None
        assert error.field.split(".")[0] == field


SMALL_INTS = st.integers(-(2**53), 2**53)
SAMPLES = st.builds(
    Sample,
    text=st.none() | st.text(),
    count=st.none() | SMALL_INTS,
    ratio=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    flag=st.none() | st.booleans(),
    choice=st.none() | st.sampled_from(["a", 1]),
    label=st.none() | st.text() | SMALL_INTS,
    audio=st.none() | st.binary(),
    format=st.none() | st.sampled_from(["pcm_16000", "ulaw_8000", "opus_48000_64"]).map(AudioFormat.parse),
    inner=st.none() | st.builds(Inner, depth=SMALL_INTS),
    inners=st.none() | st.lists(st.builds(Inner, depth=SMALL_INTS)).map(tuple),
    scalars=st.none() | st.dictionaries(st.text(), st.text() | SMALL_INTS | st.booleans()),
    class_=st.none() | st.text(),
)


@given(SAMPLES)
def test_what_is_written_can_be_read(message: Sample) -> None:
    """Every message comes back as it was."""
    assert DIALECT.decode(codec.encode(message)) == message


def test_numbers_of_either_kind_are_named_once_and_kept_as_they_are() -> None:
    """A whole number stays whole, so 3 is not read out as 3.0."""
    assert fault_of(sample_json(measure=[])).args[0] == "`measure` must be a string or a number."
    for value in (3, 3.5, "3"):
        sample = DIALECT.decode(sample_json(measure=value))
        assert isinstance(sample, Sample)
        assert (sample.measure, type(sample.measure)) == (value, type(value))
