"""Names of languages: tables of words go by ISO 639-1; recognisers take longer codes too, and regions."""

import re
from typing import Final

LANGUAGES: Final = ("en", "de", "fr", "es", "it", "pt", "nl")
"""Those of which there are tables of words."""
_ISO_639_3: Final = {
    "eng": "en",
    "deu": "de",
    "ger": "de",
    "fra": "fr",
    "fre": "fr",
    "spa": "es",
    "ita": "it",
    "por": "pt",
    "nld": "nl",
    "dut": "nl",
}


def language_of(code: str | None) -> str | None:
    """One of `LANGUAGES` for "de", "de-AT" or "deu"; ``None`` for any other, and for none."""
    primary = re.split(r"[-_]", (code or "").casefold())[0]
    primary = _ISO_639_3.get(primary, primary)
    return primary if primary in LANGUAGES else None
