"""Freed memory stays with the process, unless its user has said otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc alone")

FAULTS = """
import resource, torch
from pyro_vae.compiled.allocation import keep_freed_memory
told = keep_freed_memory()
def step():
    parts = [torch.ones(1_500_000) for _ in range(6)]  # 36 MB, all of it freed
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> tuple[bool, int]:
    command = [sys.executable, "-W", "ignore", "-c", FAULTS]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    told, count = subprocess.run(
        command, env=plain | environment, capture_output=True, text=True, check=True
    ).stdout.split()
    return told == "True", int(count)


@pytest.mark.exhaustive
def test_memory_that_is_asked_for_again_has_no_page_faults():
    told, count = faults()
    assert told
    assert count < 200


@pytest.mark.exhaustive
def test_what_the_user_chose_is_left_alone():
    told, count = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert not told
    assert count > 10_000
