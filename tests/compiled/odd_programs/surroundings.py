"""Programs that see or touch what lies around them: clocks, files, terminals, the environment, other objects."""

from __future__ import annotations

import contextvars
import csv
import datetime
import io
import logging
import multiprocessing
import os
import pickle
import queue
import sys
import tempfile
import threading
import time
import types
import warnings
from pathlib import Path

import pyro
import torch
from torch import nn

from tests.compiled.odd_programs.program import Program, base, case

COUNT = 0


@case("it prints or logs", quick=True)
def prints():
    def m(x):
        print("hello", end="")
        base(x)

    return Program(m)


@case("it reads a clock")
def time_based():
    t0 = time.time()
    return Program(lambda x: base(x * (1 if time.time() > t0 - 1 else 2)))


@case("it reads a clock")
def date_based():
    return Program(lambda x: base(x * (1 if datetime.datetime.now().year > 2000 else 2)))


@case("it writes to a file or a terminal", quick=True)
def terminal():
    return Program(lambda x: (sys.stdout.write("hello"), base(x)))


@case("it prints or logs")
def print_by_another_name():
    echo = print
    return Program(lambda x: (echo(len(x)), base(x)))


@case("it opens a file")
def file_written():
    path = Path(tempfile.mkdtemp()) / "calls"

    def m(x):
        with path.open("a") as file:
            file.write("called\n")
        base(x)

    return Program(m, read=lambda: len(path.read_text()))


@case()
def environment():
    def before(i):
        os.environ["PYRO_TEST_OFFSET"] = str(i // 5)

    return Program(lambda x: base(x, offset=float(os.environ["PYRO_TEST_OFFSET"])), before=before)


@case()
def context_variable():
    variable = contextvars.ContextVar("offset", default=0.5)

    def before(i):
        if i > 5:
            variable.set(float(i))

    return Program(lambda x: base(x, offset=variable.get()), before=before)


@case()
def thread_event():
    event = threading.Event()

    def before(i):
        if i == 6:
            event.set()

    return Program(lambda x: base(x, offset=1.0 if event.is_set() else 0.0), before=before)


@case()
def word_of_a_global():
    def before(i):
        global COUNT
        COUNT = i // 6

    return Program(lambda x: base(x, offset=float(globals()["COUNT"] + eval("COUNT + 1"))), before=before)


@case()
def imported_inside():
    settings = sys.modules["settings_of_a_test"] = types.ModuleType("settings_of_a_test")
    settings.offset = 0.0

    def m(x):
        from settings_of_a_test import offset

        base(x, offset=offset)

    def before(i):
        settings.offset = float(i // 5)

    return Program(m, before=before)


@case()
def names_in_the_parameter_store():
    def before(i):
        if i == 6:
            pyro.param("late", torch.tensor(0.0))

    return Program(lambda x: base(x, offset=1.0 if "late" in pyro.get_param_store() else 0.0), before=before)


@case("it reads a gradient of before")
def gradient_of_before():
    w = nn.Parameter(torch.ones(6))

    def before(i):
        w.grad = torch.ones(6) if i > 8 else None

    return Program(lambda x: base(x, offset=0.0 if w.grad is None else 1.0), before=before)


@case("is a c_double, which changes without a trace")
def shared_with_processes():
    value = multiprocessing.Value("d", 1.0)

    def before(i):
        value.value = 1.0 + i // 5

    return Program(lambda x: base(x, offset=value.value), before=before)


@case("it warns at every call")
def warn_in_model():
    def m(x):
        warnings.warn("careful", stacklevel=1)
        base(x)

    return Program(m)


@case("it prints or logs (surroundings.py")
def logging_model():
    log = logging.getLogger("mine")
    log.setLevel(logging.INFO)
    seen = []

    class H(logging.Handler):
        def emit(self, r):
            seen.append(1)

    log.addHandler(H())
    log.propagate = False

    def m(x):
        log.info("x")
        base(x)

    return Program(m, read=lambda: len(seen))


@case("how often a tensor was written to")
def version_of_a_tensor():
    held = torch.zeros(6)
    return Program(lambda x: base(x + held._version), before=lambda i: held.add_(0.1))


@case("it calls posix.write")
def written_by_number():
    number, name = tempfile.mkstemp()
    return Program(lambda x: (os.write(number, b"."), base(x)), read=lambda: os.path.getsize(name))


@case("it calls put of a SimpleQueue", quick=True)
def queued():
    waiting = queue.SimpleQueue()
    return Program(lambda x: (waiting.put(1), base(x)), read=waiting.qsize)


@case("it calls locked of a lock")
def locked():
    lock = threading.Lock()
    return Program(lambda x: base(x, offset=float(lock.locked())), before=lambda i: i == 7 and lock.acquire())


@case("it looks at files")
def saved():
    buffer = io.BytesIO()
    return Program(lambda x: (torch.save(torch.zeros(1), buffer), base(x)), read=buffer.tell)


@case("it calls pickle.dump")
def pickled():
    buffer = io.BytesIO()
    return Program(lambda x: (pickle.dump(1, buffer), base(x)), read=buffer.tell)


@case("it calls writerow of a writer")
def rows_written():
    buffer = io.StringIO()
    rows = csv.writer(buffer)
    return Program(lambda x: (rows.writerow([1]), base(x)), read=buffer.tell)
