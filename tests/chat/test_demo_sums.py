"""Sums as recognisers write them."""
# ruff: noqa: RUF001 - true minus and multiplication signs are read too

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.chat.demo_sums import LARGEST, OPERANDS_MAX, parse_number, solve, spell

SOLVED = [
    ("What is twelve times seven?", "12 times 7 is 84."),
    ("what's 3.5 plus 4", "3.5 plus 4 is 7.5."),
    ("What\u2019s 3x4?", "3 times 4 is 12."),
    ("Two hundred divided by eight.", "200 divided by 8 is 25."),
    ("um so how much is one hundred and five minus twenty-one please", "105 minus 21 is 84."),
    ("calculate 2 + 3 * 4 - 10 / 5 =", "2 plus 3 times 4 minus 10 divided by 5 is 12."),
    ("ten over four times two", "10 divided by 4 times 2 is 5."),
    ("8 ÷ 2 − 1 × 4", "8 divided by 2 minus 1 times 4 is 0."),
    ("1,000 * 2.5", "1,000 times 2.5 is 2,500."),
    ("3 million plus two hundred thousand", "3,000,000 plus 200,000 is 3,200,000."),
    ("nine hundred ninety nine thousand plus a hundred", "999,000 plus 100 is 999,100."),
    ("minus five plus 3", "Minus 5 plus 3 is minus 2."),
    ("five minus minus minus three", "5 minus 3 is 2."),
    ("five minus minus three", "5 minus minus 3 is 8."),
    ("zero point two five times four", "0.25 times 4 is 1."),
    ("point five plus 1", "0.5 plus 1 is 1.5."),
    ("0.1 + 0.2", "0.1 plus 0.2 is 0.3."),
    ("1 / 3", "1 divided by 3 is about 0.3333."),
    ("1 / 3 + 1 / 3 + 1 / 3", "1 divided by 3 plus 1 divided by 3 plus 1 divided by 3 is 1."),
    ("add five and three", "5 plus 3 is 8."),
    ("subtract 3 from 10", "10 minus 3 is 7."),
    ("multiply six by seven", "6 times 7 is 42."),
    ("divide 9 by 2", "9 divided by 2 is 4.5."),
    ("six multiplied by seven take away two", "6 times 7 minus 2 is 40."),
    ("ten divided by zero", "I can't divide by zero. Nobody can."),
    ("a million times a billion", "1,000,000 times 1,000,000,000 is 1,000,000,000,000,000."),
    ("a million times a billion plus 1", "Those numbers are too big for me."),
    ("9" * 200 + " times 0", "Those numbers are too big for me."),
]

NO_SUMS = [
    *("", "what is five", "twelve", "x plus y", "what is 3 plus", "times three", "plus", "3 plus plus 4"),
    *(
        "twenty twenty plus 1",
        "five zero plus two",
        "five hundred hundred plus 1",
        "3 thousand 4 million plus 1",
    ),
    *("two and two", "five and plus 1", "one point plus 2", "zero point twelve plus 2", "thousand plus 1"),
    *("what is the meaning of 3 plus 4", "__import__('os').getpid() + 1", "2 ** 8", "3 thousand 5000 plus 1"),
]


@pytest.mark.parametrize(("said", "answer"), SOLVED)
def test_sums_are_solved(said: str, answer: str) -> None:
    """In digits or words, chained, with multiplication and division first."""
    assert solve(said) == answer


@pytest.mark.parametrize("said", NO_SUMS)
def test_what_is_no_sum_is_left_alone(said: str) -> None:
    """Another skill may know what to do with it."""
    assert solve(said) is None


def test_work_is_bounded() -> None:
    """Long texts and long chains are no sums."""
    assert solve("1" + " + 1" * (OPERANDS_MAX - 1)) is not None
    assert solve("1" + " + 1" * OPERANDS_MAX) is None
    assert solve("1 + 1" + " " * 300) is None


@settings(deadline=None)  # machines differ
@given(st.integers(0, 100))
def test_spelt_numbers_are_read_back(number: int) -> None:
    """What is spelt is what is read."""
    assert parse_number(spell(number)) == number


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("twenty-one", 21),
        ("1,024", 1024),
        ("two thousand and one", 2001),
        ("a half", None),
        ("2.5", None),
        ("", None),
    ],
)
def test_whole_numbers_are_read(said: str, number: int | None) -> None:
    """In digits or words; anything else is none."""
    assert parse_number(said) == number


@settings(deadline=None)  # machines differ
@given(
    st.lists(
        st.tuples(st.sampled_from(["plus", "minus", "times"]), st.integers(0, 10**4)), min_size=1, max_size=3
    ),
    st.integers(0, 10**4),
)
def test_sums_agree_with_python(rest: list[tuple[str, int]], first: int) -> None:
    """Precedence and signs are those of arithmetic."""
    said = str(first) + "".join(f" {operator} {number}" for operator, number in rest)
    terms = [first]
    for operator, number in rest:
        if operator == "times":
            terms[-1] *= number
        else:
            terms.append(number if operator == "plus" else -number)
    expected = sum(terms)
    answer = solve(said)
    assert answer is not None
    if abs(expected) > LARGEST:
        assert answer == "Those numbers are too big for me."
    else:
        assert answer.endswith(f" is {f'{expected:,}'.replace('-', 'minus ')}.")


@settings(deadline=None)  # machines differ
@given(st.text(alphabet="0123456789+-*/x.,= aeinotwhurdpm'"))
def test_any_text_at_all_is_taken(said: str) -> None:
    """No input raises."""
    solve(said)
    parse_number(said)
