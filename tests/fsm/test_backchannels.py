import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.fsm.backchannels import remark
from voice_fsm.fsm.languages import LANGUAGES


@pytest.mark.parametrize(
    ("language_code", "text", "expected"),
    [
        ("en", "Mm-hmm.", "backchannel"),
        ("en", "uh-huh", "backchannel"),
        ("en", "Yeah, yeah. Okay.", "backchannel"),
        ("en", "oh I see", "backchannel"),
        ("en", "um", "backchannel"),
        ("en", "yes please do that", "words"),
        ("en", "right now", "words"),
        ("en", "wait", "command"),
        ("en", "Okay, stop!", "command"),
        ("en", "hmm hold on a second", "command"),
        ("en", "no", "command"),
        ("en", "I said stop", "words"),
        ("en", "genau", "words"),
        ("de-AT", "Ja, genau.", "backchannel"),
        ("deu", "Moment mal", "command"),
        ("fr", "d'accord", "backchannel"),
        ("fr", "Attendez !", "command"),
        ("es", "Sí, claro", "backchannel"),
        ("es", "espera", "command"),
        ("it", "ho capito", "backchannel"),
        ("it", "Aspetta un attimo", "command"),
        ("pt_BR", "tá bom", "backchannel"),
        ("pt", "Não", "command"),
        ("nl", "Ja, precies", "backchannel"),
        ("nl", "wacht even", "command"),
        (None, "genau", "backchannel"),
        (None, "attends", "command"),
        ("xx", "hai capito tutto", "words"),
    ],
)
def test_what_is_said_to_a_speaker(language_code: str | None, text: str, expected: str) -> None:
    """Sounds of listening are told from orders and from all else, in the language of the session."""
    assert remark(text, language_code) == expected


@settings(deadline=None)  # machines differ
@given(st.text(max_size=40), st.sampled_from([None, *LANGUAGES]))
def test_any_text_is_some_remark(text: str, language_code: str | None) -> None:
    """No text raises, and more hums before it change nothing."""
    assert remark(f"mm-hmm {text}", language_code) == remark(text, language_code)
