"""Wrong cores: the tests of the core have to notice each. All of them: ``python -m tests.mutants``."""

import pytest

from tests.mutants.table import MUTANTS, Mutant
from tests.mutants.trial import is_noticed, mutated_source


def test_every_fault_can_still_be_made() -> None:
    """Each place and text stands in the core once, so the table is about the code that there is."""
    for mutant in MUTANTS:
        compile(mutated_source(mutant), mutant.module, "exec")


@pytest.mark.parametrize("mutant", MUTANTS[::5], ids=str)
def test_a_broken_promise_is_noticed(mutant: Mutant) -> None:
    """The test that is to notice it fails; a few of each kind, for all take minutes."""
    assert is_noticed(mutant, mutant.by)
