"""``python -m tests.mutants``: a table of all mutants, and whether its example and the model notice each."""

import sys

from tests.mutants.table import MUTANTS
from tests.mutants.trial import MODEL, is_noticed

print("| promise | place | example | model |\n|---|---|---|---|")  # noqa: T201
by_model = survivors = 0
for mutant in MUTANTS:
    model = is_noticed(mutant, MODEL)
    example = mutant.by != MODEL and is_noticed(mutant, mutant.by)
    by_model += model
    survivors += not (model or example)
    shown = f"`{mutant.by}`" if example else "-"
    place = f"{mutant.module}.{mutant.place}"
    print(f"| {mutant.breaks} | `{place}` | {shown} | {'yes' if model else '-'} |", flush=True)  # noqa: T201
print(f"\n{len(MUTANTS)} mutants, {by_model} noticed by the model, {survivors} by nothing")  # noqa: T201
sys.exit(survivors > 0)
