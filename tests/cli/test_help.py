"""Help screens: every flag once, those that matter first, no line wider than the terminal; and completion."""

from __future__ import annotations

import subprocess

import pytest
from click.testing import CliRunner

from pyro_vae.cli import main
from pyro_vae.cli.grouped import FIRST
from pyro_vae.config import FitConfig


def screen(*words: str) -> str:
    return CliRunner().invoke(main, [*words, "--help"], prog_name="pyro-vae", terminal_width=80).stdout


@pytest.mark.parametrize("name", [None, *main.commands])
def test_help_fits_a_terminal_of_80_columns(name):
    text = screen(name) if name else screen()
    assert text.startswith("Usage: pyro-vae")
    assert [
        line
        for line in text.splitlines()
        if len(line) > 80 and "python cli.py" not in line and "pyro-vae completion" not in line
    ] == []


@pytest.mark.parametrize("name", main.commands)
def test_a_command_shows_how_it_is_used(name):
    assert (
        len([line for line in screen(name).splitlines() if "python cli.py" in line or "pyro-vae completion" in line])
        >= 2
    )


def test_fit_has_every_setting_once_and_the_five_first():
    text = screen("fit")
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert shown[: len(FIRST)] == [f"--{name}" for name in FIRST]
    assert len(shown) == len(set(shown))
    assert {f"--{name.replace('_', '-')}" for name in FitConfig.model_fields} <= set(shown)
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles[:5] == ["First:", "Data:", "Model and guide:", "Training:", "The run:"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_the_program(command, shell):
    result = command("completion", shell)
    assert result.exit_code == 0
    assert "_PYRO_VAE_COMPLETE" in result.stdout
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=result.stdout, text=True, check=False).returncode == 0


def test_completion_offers_commands_and_refuses_other_shells(command, monkeypatch):
    monkeypatch.setenv("_PYRO_VAE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "pyro-vae ex")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert CliRunner().invoke(main, [], prog_name="pyro-vae").stdout == "plain,export\n"
    monkeypatch.delenv("_PYRO_VAE_COMPLETE")
    refused = command("completion", "csh")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
