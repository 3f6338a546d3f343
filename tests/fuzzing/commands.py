"""Command lines as nobody means them: every flag of every command, with values extreme, wrong or nearly right."""

from __future__ import annotations

import itertools
from pathlib import Path

import click
from click.testing import CliRunner, Result
from hypothesis import strategies as st

from pyro_vae.cli import main

NUMBERS = [
    *"0 1 2 -1 3.5 1e-300 1e300 1e12 inf nan -0 00 1_0 0x10 1e 1,2 ,".split(),
    str(2**63),
    str(2**64),
    "",
    " ",
    "٣",
]
WORDS = """auto none all best last test train validation digits toy vae ss_vae hvae mean_field iaf:num_transforms=1
    iaf:num_transforms=-1 low_rank:rank=99999999 normal gaussian bernoulli binomial:trials=0 elbo iwae:num_samples=0
    linear:0:1:1 linear:1:0:nan cyclical:0:1:1:0 mlp:hidden= conv cpu cuda 32 bf16 vea ss-vae a:b=c:d=e : = a= toy.npz
    toy.npz:size=3 toy.csv photos photos:size=2 run run/ ./run/../run nowhere / /dev/null /proc/self/mem ~ ~nobody/x -
    [red]x $x$ é .""".split()
WORDS += ["a\nb", "\x1b[31m", "\udcff", "n" * 256, "../" * 50]
SMALL = ["--data", "toy.npz", "--epochs", "1", "--batch-size", "40", "--hidden", "4", "--latent-dim", "2", "--labels",
         "none", "--compile", "off", "--likelihood", "gaussian"]  # fmt: skip
COSTLY = {"--out", "--download", "--help", "-h"}  # where a command writes is the test's to say
LIMITS = {"--samples": "3", "--num-data": "6", "--simulated": "0", "--split-gap": "0", "--num": "2"}

values = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.text(max_size=8), st.integers().map(str))


def flags_of(name: str) -> list[str]:
    command = main.commands[name]
    return [option.opts[0] for option in command.params if isinstance(option, click.Option)]


def _is_switch(name: str, flag: str) -> bool:
    options = [option for option in main.commands[name].params if isinstance(option, click.Option)]
    return any(flag in option.opts and option.is_flag for option in options)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with up to three flags changed from what would be quick and right."""
    name = draw(st.sampled_from(sorted(set(main.commands) - {"compare-mcmc"})))
    flags = [flag for flag in flags_of(name) if flag not in COSTLY]
    words = [name]
    if name == "fit":
        words += [*SMALL, "--out", "new"]
    elif name == "list":
        words += draw(st.lists(st.one_of(values, st.sampled_from(["models", "data"])), max_size=2))
    else:
        words.append(draw(st.one_of(st.just("run"), st.just("run"), values)))
        words += [word for flag, value in LIMITS.items() if flag in flags for word in (flag, value)]
    for flag in draw(st.lists(st.sampled_from(flags), max_size=3)) if flags else ():
        words += [flag] if _is_switch(name, flag) else [flag, draw(values)]
    if draw(st.integers(0, 9)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(values))
    return [word for word in words if "\0" not in word]


LARGE = """--epochs --num --samples --num-data --simulated --split-gap --nuts --latent-dim --hidden --batch-size --dims
    --fps""".split()


def costs_too_much(words: list[str]) -> bool:
    """Whether a command may rightly take long, or all memory: many epochs, samples or images that were asked for."""
    for flag, value in itertools.pairwise(words):
        if flag in LARGE:
            try:
                if max(map(abs, map(float, value.split(",")))) > 64:
                    return True
            except ValueError:
                continue
        if flag == "--data" and value == "digits":
            return True
    return False


def run(words: list[str]) -> Result:
    """Run a command line in the current folder."""
    return CliRunner().invoke(main, words)


def fault(result: Result, before: set[str], folder: Path) -> str:
    """What is wrong with how a command ended; empty if nothing is."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"a traceback: {result.exception!r}"
    if result.exit_code not in (0, 1, 2):
        return f"exit status {result.exit_code}"
    if "unforeseen" in result.stderr or "Traceback" in result.stderr:
        return f"unforeseen: {result.stderr.strip()[-400:]}"
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    if result.exit_code and len(errors) != 1 and "Usage" not in result.stderr + result.stdout:
        return f"{len(errors)} errors: {result.stderr.strip()[-400:]}"
    left = {path.name for path in folder.rglob(".*")} - before
    return f"left lying about: {left}" if left else ""
