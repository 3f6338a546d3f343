"""Every kind of program is answered rightly, or refused with its reason."""

from __future__ import annotations

import pytest

from benchmarks.programs import KINDS, OPERATIONS, ask
from benchmarks.programs.__main__ import DOCUMENT, markdown, read

USUAL = {
    "KL annealed by poutine.scale",
}
MISTAKES = {name for name, kind in KINDS.items() if "fit" in kind.refused}


def _marks(name: str, number: int) -> tuple[pytest.MarkDecorator, ...]:
    """The usual kinds by default, an eighth of the others in the exhaustive run, and all of them in the slow one."""
    if name in USUAL | MISTAKES:
        return ()
    return (pytest.mark.exhaustive,) if number % 8 == 0 else (pytest.mark.slow,)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=_marks(name, number)) for number, name in enumerate(KINDS)],
)
def test_a_kind_is_right_or_refused(name):
    cells = ask(KINDS[name])
    found = {operation: cell for operation, cell in cells.items() if cell.word in ("wrong", "raises")}
    assert not found
    refused = {operation for operation, cell in cells.items() if cell.word == "refused"}
    assert refused == set(KINDS[name].refused)
    assert all(
        cell.detail.startswith("expected ") and "\n" not in cell.detail for cell in cells.values() if cell.detail
    )


def test_the_table_has_every_kind():
    table = DOCUMENT.read_text().split("<!-- by")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    assert {name for name, *_ in rows} - {"program"} == set(KINDS)
    assert not {"wrong", "raises"} & {cell for row in rows for cell in row}


def test_reasons_are_numbered_once():
    cells = ask(KINDS["no observation"])
    table = markdown({"one": cells, "two": cells})
    assert table.count("refused [1]") == 2
    assert table.count("\n1. ") == 1
    assert table.splitlines()[0].count("|") == len(OPERATIONS) + 3


def test_a_table_is_read_as_it_was_written():
    text = DOCUMENT.read_text()
    answers = read(text)
    assert markdown(answers) in text.replace("\n\n|", "\n|")
    assert len(answers) == len(KINDS)
