"""The second process that makes machine code, and what becomes of its work if it fails."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from numba.core.registry import cpu_target

from fastmlp.kernels import _helper, _jit

pytestmark = pytest.mark.jit


def times(factor: int) -> bytes:
    """A module with one function."""
    module = llvm.parse_assembly(
        f"""
        define i64 @times_{factor}(i64 %x) {{
            %y = mul i64 %x, {factor}
            ret i64 %y
        }}
        """
    )
    module.triple = llvm.get_process_triple()
    bitcode: bytes = module.as_bitcode()
    return bitcode


@pytest.fixture
def helper() -> Iterator[_helper.Helper]:
    helper = _helper.Helper()
    yield helper
    helper.close()


def refuse(bitcode: bytes) -> bytes:
    raise AssertionError("not in this process")


def test_helper_makes_what_would_be_made_here(
    helper: _helper.Helper, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [_helper.emit(times(factor)) for factor in (3, 5)]
    monkeypatch.setattr(_helper, "emit", refuse)
    results = [helper.order(times(factor)) for factor in (3, 5)]
    assert [result() for result in results] == expected
    process = helper._process
    assert process
    assert process.poll() is None  # one process for all
    helper.close()
    assert process.poll() is not None


def test_nothing_starts_without_an_order(helper: _helper.Helper) -> None:
    assert helper._process is None
    helper.close()


def test_object_code_is_found_by_name() -> None:
    codegen = cpu_target.target_context.codegen()
    _jit._load_objects(codegen, [_helper.emit(times(7)), _helper.emit(times(11))])
    codegen._engine.finalize_object()
    address = codegen._engine.get_function_address("times_11")
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(6) == 66


def after_optimizing(reads: str) -> tuple[str, int, int]:
    """What becomes of a function with two arguments that reads one of them, or both, and its entry.

    Its name, the number of its arguments, and that of the entry's.
    """
    library = cpu_target.target_context.codegen().create_library("module")
    library._final_module = llvm.parse_assembly(
        f"""
        define linkonce_odr i64 @inner(i64 %x, i64 %y) noinline {{
            %z = mul i64 %x, {reads}
            ret i64 %z
        }}
        define i64 @entry(i64 %x, i64 %y) noinline {{
            %z = call i64 @inner(i64 %x, i64 %y)
            ret i64 %z
        }}
        """
    )
    _helper.optimize(library)
    functions = {f.name: len([*f.arguments]) for f in library._final_module.functions}
    entry = functions.pop("entry")
    ((name, count),) = functions.items()
    return name, count, entry


def test_functions_of_a_module_lose_what_nobody_reads() -> None:
    name, count, entry = after_optimizing(reads="%x")
    assert (count, entry) == (1, 2)
    other_name, count, entry = after_optimizing(reads="%y")
    assert (count, entry) == (2, 2)
    assert name != other_name  # of another version, which may be in somebody's cache
    assert after_optimizing(reads="%x")[0] == name


@pytest.mark.parametrize(
    "command",
    [
        "raise SystemExit",
        "print('not an answer')",
        "import time; time.sleep(60)",
        "import sys; sys.stdin.close(); sys.stdout.close()",
        # its output stays open in a process of its own
        "import os; os.system('sleep 9 &')",
    ],
)
def test_what_the_helper_does_not_do_is_done_here(
    helper: _helper.Helper, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(_helper, "COMMAND", command)
    monkeypatch.setattr(helper, "_patience", 0.5)
    results = [helper.order(times(factor)) for factor in (3, 5)]
    assert [result() for result in results] == [_helper.emit(times(factor)) for factor in (3, 5)]


def test_interpreter_that_is_not_there(
    helper: _helper.Helper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert helper.order(times(3))() == _helper.emit(times(3))


def test_helper_compiles_by_no_other_settings(
    helper: _helper.Helper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may differ there, if they were changed since the start."""
    expected = _helper.emit(times(3))
    monkeypatch.setattr(_helper.config, "OPT", 1)
    made_here = []
    monkeypatch.setattr(_helper, "emit", lambda bitcode: made_here.append(bitcode) or expected)
    assert helper.order(times(3))() == expected
    assert made_here == [times(3)]


AFTER_THE_END = """
import threading
from test_helper import times
from fastmlp.kernels import _helper

def work():
    threading.main_thread().join()
    helper = _helper.Helper()
    print(helper.order(times(3))() == _helper.emit(times(3)))
    helper.close()

threading.Thread(target=work).start()
"""


def test_order_of_a_thread_that_outlives_the_main_one() -> None:
    """Nothing new may be registered for the end of the interpreter then, nor every thread start."""
    done = subprocess.run(
        [sys.executable, "-c", AFTER_THE_END],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("executable", ["", None, "/usr/sbin/uwsgi", "/opt/pythonservice.exe"])
def test_no_helper_without_a_python_to_start(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    for name in ("python", "python3.13t", "Python.exe", "pythonw.exe", "python_d.exe"):
        monkeypatch.setattr(sys, "executable", f"/opt/{name}")
        assert _helper.is_useful()
    monkeypatch.setattr(sys, "executable", executable)
    assert not _helper.is_useful()


def test_no_helper_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert not _helper.is_useful()
