"""Machine code of a part of the program, made by a second process while this one lowers the rest.

A thread would gain nothing: one at a time runs Python, and one at a time LLVM.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

COMMAND = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import serve; serve()"
PATIENCE = 60.0  # seconds; a part takes two


def emit(bitcode: bytes) -> bytes:
    """Object code of a module, optimised as Numba would."""
    codegen = cpu_target.target_context.codegen()
    library = codegen.create_library("part")
    library._final_module = llvm.parse_bitcode(bitcode)
    library._optimize_final_module()
    code: bytes = codegen._tm.emit_object(library._final_module)
    return code


def _machine() -> Any:
    return cpu_target.target_context.codegen().magic_tuple()


def serve() -> None:
    """Answer each module that comes in with its object code, until no more come."""
    with contextlib.suppress(EOFError):
        while True:
            machine, bitcode = pickle.load(sys.stdin.buffer)
            if machine != _machine():
                raise RuntimeError(f"asked to compile for {machine}, not for {_machine()}")
            pickle.dump(emit(bitcode), sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _ask(process: subprocess.Popen[bytes], bitcode: bytes) -> bytes:
    assert process.stdin
    assert process.stdout
    pickle.dump((_machine(), bitcode), process.stdin)
    process.stdin.flush()
    code: bytes = pickle.load(process.stdout)
    return code


class Helper:
    """A second process for the time of one compilation; whatever it fails to do is done here.

    Orders come before all results are asked for.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "fastmlp-helper")
        self._process: subprocess.Popen[bytes] | None = None

    def order(self, bitcode: bytes) -> Callable[[], bytes]:
        """Have object code made of a module; what is returned waits for it."""
        try:
            self._process = self._process or _start()
        except OSError:
            return lambda: emit(bitcode)
        answer = self._threads.submit(_ask, self._process, bitcode)

        def result() -> bytes:
            try:
                return answer.result(PATIENCE)
            except Exception:  # noqa: BLE001 - all that can befall another process
                self.close()
                return emit(bitcode)

        return result

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()  # whoever waits for an answer reads that there is none
            self._threads.shutdown(cancel_futures=True)
            with contextlib.suppress(BrokenPipeError), self._process:
                pass  # closes its pipes and waits for its end


def is_useful() -> bool:
    """Whether there is a core for a second process, and a Python interpreter to start."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return cores > 1 and Path(sys.executable or "").stem.lower().startswith("python")
