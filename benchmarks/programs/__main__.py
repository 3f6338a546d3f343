"""Every kind of program, asked for everything: the table of docs/programs.md.

    python -m benchmarks.programs                           # all kinds, some minutes; prints the table
    python -m benchmarks.programs --only "shared latent"    # those with these words in their names
    python -m benchmarks.programs --write                   # puts it into docs/programs.md
    python -m benchmarks.programs --only "by name" --write  # puts these rows there, and leaves the others

Exit status 1 where an answer is wrong, or an error is raised that explains nothing.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import click
import torch

from benchmarks.programs import KINDS, OPERATIONS, Cell, ask

DOCUMENT = Path(__file__).parents[2] / "docs" / "programs.md"
TABLE = re.compile(r"(<!-- by python -m benchmarks.programs -->\n).*?(<!-- end -->)", re.DOTALL)
COLUMNS = ("fit", *OPERATIONS)


@click.command(help=__doc__)
@click.option("--only", multiple=True, help="Words in the names of the kinds.")
@click.option("--write", is_flag=True, help="Write the table into docs/programs.md.")
def main(only: tuple[str, ...], write: bool) -> None:
    """Ask, and print."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = {name: kind for name, kind in KINDS.items() if not only or any(words in name for words in only)}
    answers: dict[str, dict[str, Cell]] = {}
    for name, kind in chosen.items():
        answers[name] = ask(kind, log=lambda text: click.echo(text, err=True))
        click.echo(f"{name}: {', '.join(f'{n} {cell.word}' for n, cell in answers[name].items())}", err=True)
    table = markdown(answers)
    click.echo(table)
    if write:
        text = DOCUMENT.read_text()
        rows = (read(text) if only else {}) | answers
        table = markdown({name: rows[name] for name in KINDS if name in rows})
        DOCUMENT.write_text(TABLE.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", text))
    sys.exit(any(cell.word in ("wrong", "raises") for cells in answers.values() for cell in cells.values()))


def markdown(answers: dict[str, dict[str, Cell]]) -> str:
    """The table, a row per kind, with the reasons of what is refused below."""
    reasons: dict[str, int] = {}
    lines = [f"| program | {' | '.join(f'`{name}`' for name in COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for name, cells in answers.items():
        words = []
        for cell in cells.values():
            number = reasons.setdefault(cell.detail, len(reasons) + 1) if cell.word == "refused" else 0
            words.append(f"refused [{number}]" if number else cell.word)
        lines.append(f"| {name} | {' | '.join(words)} |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items())])


def read(text: str) -> dict[str, dict[str, Cell]]:
    """The answers that a document's table gives, as ``markdown`` writes them."""
    table = text.split("<!-- by")[1].split("<!-- end")[0]
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", table, re.MULTILINE))
    answers: dict[str, dict[str, Cell]] = {}
    for line in table.splitlines():
        name, *words = (cell.strip() for cell in line.split("|")[1:-1]) if line.startswith("| ") else ("program",)
        if name != "program":
            numbers = [re.search(r"\d+", word) for word in words]
            answers[name] = {
                column: Cell(word.split(" [")[0], reasons[number[0]] if number else "")
                for column, word, number in zip(COLUMNS, words, numbers, strict=True)
            }
    return answers


if __name__ == "__main__":
    main()
