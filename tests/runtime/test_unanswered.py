"""What is kept for a new link: how much, and in which order."""

from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.runtime.unanswered import Commit, Unanswered

moves = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 9)),
    st.tuples(st.just("commit"), st.none()),
    st.tuples(st.just("forget"), st.integers(-2, 30)),
    st.tuples(st.just("forget_utterance"), st.none()),
    st.tuples(st.just("take_all"), st.none()),
)


def forget(kept: list[int | Commit], count: int) -> None:
    while count > 0 and kept:
        count -= not isinstance(kept.pop(0), Commit)


@given(st.lists(moves, max_size=30))
def test_what_comes_back_is_what_was_not_forgotten(done: list[tuple[str, int | None]]) -> None:
    """Held against a plain list of bytes and commits."""
    unanswered, kept = Unanswered(), list[int | Commit]()
    for number, (move, size) in enumerate([*done, ("take_all", None)]):
        match move:
            case "append":
                audio = bytes(range(10 * number % 250, 10 * number % 250 + (size or 0)))
                unanswered.append(audio)
                kept += audio
            case "commit":
                unanswered.append(Commit())
                kept.append(Commit())
            case "forget":
                unanswered.forget(size or 0)
                forget(kept, size or 0)
            case "forget_utterance" if unanswered.has_commit:
                unanswered.forget_utterance()
                del kept[: kept.index(Commit()) + 1]
            case "take_all":
                given_back = list[int | Commit]()
                for item in unanswered.take_all():
                    given_back += [item] if isinstance(item, Commit) else item
                assert given_back == kept
                kept = []
        assert unanswered.size_bytes == sum(not isinstance(item, Commit) for item in kept)
        assert unanswered.has_commit == (Commit() in kept)
