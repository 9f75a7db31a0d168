"""Say, then transcribe: ``python -m tests.bench.round_trip`` asks a served process over HTTP, and prints the
words that came back wrong, as a share of those said.

A figure of both engines together, to notice when either, or what lies between them, gets worse. It is no
measure of recognition: the embedded voice is harder to understand than a person.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import attrs
import httpx

from tests.fakes.recordings import word_error_rate
from tests.integration.speech_process import speech_server

SENTENCES: Final = (
    "The train to London leaves at nine in the morning.",
    "Please open the window, it is very warm in here.",
    "Can you tell me the way to the station?",
    "My sister bought a red bicycle last summer.",
    "We should meet again next Tuesday afternoon.",
    "The weather will be cold and cloudy tomorrow.",
    "He forgot his umbrella at the restaurant.",
    "There are seven days in a week.",
    "I would like a cup of tea with milk.",
    "The children are playing in the garden.",
    "Turn left at the second traffic light.",
    "Your order has been sent to the wrong address.",
    "She has been learning the piano for three years.",
    "The meeting was moved to the large conference room.",
    "Do not forget to lock the door when you leave.",
    "The museum is closed on the first Monday of the month.",
    "Our flight was delayed because of heavy rain.",
    "Could you speak a little more slowly, please?",
    "The doctor said that everything looks fine.",
    "They finished the work before the end of the day.",
)
VOICE: Final = "en-us"


@attrs.frozen
class RoundTrip:
    """What one sentence became, and how long both ways took together, in seconds."""

    said: str
    heard: str
    took_s: float

    @property
    def errors(self) -> float:
        return word_error_rate(self.said, self.heard)


def say_and_transcribe(http: httpx.Client, sentence: str, voice: str = VOICE) -> RoundTrip:
    """Both endpoints, once each."""
    began_s = time.perf_counter()
    spoken = http.post(
        f"/v1/text-to-speech/{voice}", params={"output_format": "wav_16000"}, json={"text": sentence}
    ).raise_for_status()
    heard = http.post("/v1/speech-to-text", files={"file": ("said.wav", spoken.content)}).raise_for_status()
    return RoundTrip(sentence, heard.json()["text"], time.perf_counter() - began_s)


def error_rate(trips: list[RoundTrip]) -> float:
    """Of all words of all sentences."""
    words = [len(trip.said.split()) for trip in trips]
    return sum(trip.errors * count for trip, count in zip(trips, words, strict=True)) / sum(words)


def main() -> None:
    """Print each sentence that came back changed, and the share of wrong words."""
    voice = sys.argv[1] if len(sys.argv) > 1 else VOICE
    with (
        tempfile.TemporaryDirectory() as directory,
        speech_server(Path(directory)) as url,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        trips = [say_and_transcribe(http, sentence, voice) for sentence in SENTENCES]
    for trip in trips:
        if trip.errors:
            print(f"{trip.errors:4.0%}  {trip.said}\n      {trip.heard}")
    took_ms = sorted(trip.took_s * 1000 for trip in trips)[len(trips) // 2]
    print(f"{len(trips)} sentences, voice {voice}: word error rate {error_rate(trips):.1%}, ", end="")
    print(f"median {took_ms:.0f} ms both ways")


if __name__ == "__main__":
    main()
