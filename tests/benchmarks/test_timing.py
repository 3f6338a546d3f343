"""The harness of the benchmarks: turns, ratios, and workers that answer, refuse, die or talk nonsense."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks import timing
from benchmarks.timing import LEAD_IN, ROOT, WARM_UP, Contender, ContenderError, Here, Timing, Turn, Worker

HEAD = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.timing import serve\n"


@pytest.fixture
def worker(tmp_path):
    """Makes a worker of a script; it is stopped afterwards."""
    made = []

    def make(script: str, name: str = "worker", python: str = sys.executable) -> Worker:
        path = tmp_path / f"{name}.py"
        path.write_text(HEAD + script)
        made.append(Worker(name, [str(path)], python))
        return made[-1]

    yield make
    for one in made:
        one.stop()


class Scripted(Contender):
    """Takes the times it is told to, and writes down its turns."""

    def __init__(self, name: str, milliseconds: list[float], log: list[str]) -> None:
        super().__init__(name)
        self.milliseconds, self.log = iter(milliseconds), log

    def start(self) -> str:
        return f"{self.name} 1.0"

    def run(self, steps: int) -> Turn:
        if steps == LEAD_IN:
            return Turn(99.0)
        self.log.append(self.name)
        return Turn(next(self.milliseconds) * steps / 1e3, loss=float(len(self.log)))

    def stop(self) -> None:
        self.log.append(f"{self.name} stopped")


def test_contenders_take_turns_and_every_round_begins_with_another():
    log: list[str] = []
    contenders = [Scripted("a", [1, 2, 9, 3], log), Scripted("b", [2, 2, 6, 4], log)]
    timings = timing.measure(contenders, rounds=4, steps=5)
    assert log == ["a", "b", "b", "a", "a", "b", "b", "a", "b stopped", "a stopped"]
    a, b = timings["a"], timings["b"]
    assert a.rounds == pytest.approx([1, 2, 9, 3])  # without the steps that lead in
    assert (a.median, b.median) == pytest.approx((2.5, 3))
    assert a.quartiles == pytest.approx((1.75, 4.5))
    assert timing.ratio(a, b) == pytest.approx(2.5 / 3)
    assert timing.paired_ratio(a, b) == pytest.approx((0.75 + 1) / 2)  # of 1/2, 1, 3/2, 3/4
    assert a.losses == [1, 4, 5, 8]
    assert a.about == "a 1.0"


def test_one_round_is_its_own_quartiles():
    assert Timing("a", [3.0]).quartiles == (3.0, 3.0)


def test_names_must_differ():
    with pytest.raises(AssertionError, match="same name"):
        timing.measure([Scripted("a", [1], []), Scripted("a", [1], [])], rounds=1, steps=5)


def test_a_contender_in_this_process():
    calls = []
    contender = Here("here", lambda: timing.repeat(lambda: calls.append(1) or len(calls)))
    taken = timing.measure([contender], rounds=2, steps=4)["here"]
    assert len(calls) == WARM_UP + 2 * (LEAD_IN + 4)
    assert taken.losses == [sum(range(13, 17)) / 4, sum(range(19, 23)) / 4]
    assert all(0 < milliseconds < 100 for milliseconds in taken.rounds)


def test_one_that_fails_does_not_cost_the_others_their_figures():
    def build():
        raise ValueError("no compiler\nand much more")

    timings = timing.measure([Here("bad", build), Here("good", lambda: lambda steps: None)], rounds=2, steps=3)
    assert timings["bad"].problem == "ValueError: no compiler"
    assert timings["bad"].rounds == []
    assert len(timings["good"].rounds) == 2
    assert timings["good"].losses == []


def test_a_worker_measures_inside_and_keeps_its_state(worker):
    script = """
import time
done = 0
def build():
    print("a library says hello")  # no answer, and must not be taken for one
    def work(steps):
        global done
        done += steps
        time.sleep(0.01 * steps)
        return float(done)
    return work
serve(build)
"""
    taken = timing.measure([worker(script)], rounds=2, steps=3)["worker"]
    assert taken.problem == ""
    assert taken.losses == [WARM_UP + LEAD_IN + 3, WARM_UP + 2 * (LEAD_IN + 3)]
    assert all(10 <= milliseconds < 100 for milliseconds in taken.rounds)


def test_a_worker_ends_when_told_to(worker):
    one = worker("serve(lambda: lambda steps: None)")
    one.start()
    process = one._process
    assert process.poll() is None
    assert one.run(1).loss is None
    one.stop()
    assert process.returncode == 0


def test_a_worker_tells_its_versions(worker):
    assert worker("import numpy; serve(lambda: lambda steps: None, ['numpy'])").start().startswith("numpy ")


def test_a_worker_that_lacks_a_package_says_so(worker):
    one = worker("def build():\n    import no_such_package\nserve(build)")
    problem = timing.measure([one], rounds=1, steps=1)["worker"].problem
    assert problem == f"cannot start in {sys.executable}: No module named 'no_such_package'"


def test_a_missing_interpreter_says_so(worker):
    problem = timing.measure([worker("", python="/no/python")], rounds=1, steps=1)["worker"].problem
    assert problem == "no interpreter /no/python (No such file or directory)"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("raise RuntimeError('at once')", "ended with status 1: RuntimeError: at once"),
        ("import os; os._exit(3)", "ended with status 3: no message"),
        ("print('hello')", "answered 'hello' instead of 'ready'"),
    ],
)
def test_a_worker_that_does_not_start(worker, script, problem):
    with pytest.raises(ContenderError) as raised:
        worker(script).start()
    assert str(raised.value) == problem


def test_a_worker_that_dies_in_the_middle_leaves_the_others_running(worker):
    script = """
import os
turns = 0
def work(steps):
    global turns
    turns += steps == 7
    if turns == 2:
        os.kill(os.getpid(), 9)
serve(lambda: work)
"""
    timings = timing.measure(
        [worker(script, "dies"), worker("serve(lambda: lambda steps: 1.5)", "lives")], rounds=3, steps=7
    )
    assert timings["dies"].problem == "ended with status -9: no message"
    assert timings["dies"].rounds == []
    assert timings["lives"].losses == [1.5] * 3


@pytest.mark.parametrize("words", ["soon", "", "1 2 3"])
def test_a_worker_that_talks_nonsense(worker, words):
    one = worker(f"print('ready', flush=True); input(); print({words!r}, flush=True); input()")
    one.start()
    with pytest.raises(ContenderError, match=f"answered '{words}' instead of seconds"):
        one.run(1)


def test_an_interpreter_may_be_a_relative_path(worker, tmp_path, monkeypatch):
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    one = worker("", python="./python")
    assert one.command[0] == str(tmp_path / "python")


def test_a_worker_that_hangs_is_ended(worker, monkeypatch):
    monkeypatch.setattr(timing, "LIMIT", 0.5)
    with pytest.raises(ContenderError, match="ended with status -9"):
        worker("import time; time.sleep(60)").start()


def test_the_line_about_the_machine():
    import torch

    line = timing.machine(1, ["torch"])
    assert f"{os.cpu_count()} cores, 1 used, Python 3." in line
    assert line.endswith(f"torch {torch.__version__}")


@pytest.mark.skipif(sys.platform != "linux", reason="cores are Linux's to give")
def test_threads_are_kept_to_cores():
    """In a process of its own, since there is no way back."""
    script = "from benchmarks import timing; timing.use_threads(1); print(timing.cores())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
