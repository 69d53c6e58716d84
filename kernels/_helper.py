"""Machine code of a part of the program, made by a second process while this one lowers the rest.

Both optimise by `optimize`, an entry's own module too. A thread would gain nothing: one at a time
runs Python, and one at a time LLVM.
"""

import contextlib
import hashlib
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import llvmlite.binding as llvm
from numba import config
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import cpu_target

from .machine import available_cores

COMMAND = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import serve; serve()"
PATIENCE = 60.0  # seconds; a part takes two
_numbas_optimize = JITCodeLibrary._optimize_final_module  # `_jit` has `optimize` in its place


def optimize(library: Any) -> None:
    """Optimise a module as Numba would, without the arguments that nobody reads.

    Of an array, kernels read less than half of what Numba hands on. Only internal functions lose
    arguments, since all callers are known. What is left is named after the whole module: in another
    one, or another version of this, it may have lost others.
    """
    module = library._final_module
    suffix = hashlib.sha256(module.as_bitcode()).hexdigest()[:16]
    for function in _defined(module, "linkonce_odr"):
        function.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_dead_arg_elimination_pass()
    passes.run(module, library._codegen._pass_builder())
    for function in _defined(module, "internal"):
        function.linkage = "linkonce_odr"
        function.name = f"{function.name}.{suffix}"
    _numbas_optimize(library)


def _defined(module: Any, linkage: str) -> list[Any]:
    return [f for f in module.functions if not f.is_declaration and f.linkage.name == linkage]


def emit(bitcode: bytes) -> bytes:
    """Object code of a module."""
    codegen = cpu_target.target_context.codegen()
    library = codegen.create_library("part")
    library._final_module = llvm.parse_bitcode(bitcode)
    optimize(library)
    code: bytes = codegen._tm.emit_object(library._final_module)
    return code


def _settings() -> Any:
    """What decides the code, beside the module."""
    return *cpu_target.target_context.codegen().magic_tuple(), int(config.OPT)


def serve() -> None:
    """Answer each module that comes in with its object code, until no more come."""
    with contextlib.suppress(EOFError):
        while True:
            settings, bitcode = pickle.load(sys.stdin.buffer)
            if settings != _settings():
                raise RuntimeError(f"asked to compile for {settings}, not for {_settings()}")
            pickle.dump(emit(bitcode), sys.stdout.buffer)
            sys.stdout.buffer.flush()


Answer = SimpleQueue[bytes | None]
Orders = SimpleQueue[tuple[bytes, Answer] | None]


class Helper:
    """A second process for the time of one compilation; whatever it fails to do is done here."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: Orders = SimpleQueue()
        self._patience = PATIENCE

    def order(self, bitcode: bytes) -> Callable[[], bytes]:
        """Have object code made of a module; what is returned waits for it."""
        answer: Answer = SimpleQueue()
        try:
            if self._process is None:
                self._start()
            self._orders.put((bitcode, answer))
        except Exception:  # noqa: BLE001 - all that a system may have against another process
            self._patience = 0.0

        def result() -> bytes:
            with contextlib.suppress(Empty):
                code = answer.get(timeout=self._patience)
                if code is not None:
                    return code
            self._patience = 0.0  # for what comes after a failure
            return emit(bitcode)

        return result

    def _start(self) -> None:
        self._process = process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        Thread(target=_talk, args=(process, self._orders), daemon=True).start()

    def close(self) -> None:
        """End the process."""
        self._orders.put(None)
        if self._process is not None:
            self._process.kill()  # whoever waits for an answer reads that there is none
            self._process.wait()


def _talk(process: subprocess.Popen[bytes], orders: Orders) -> None:
    """Hand orders to the process, one after the other, and its answers to whoever gave them."""
    assert process.stdin
    assert process.stdout
    while (order := orders.get()) is not None:
        bitcode, answer = order
        try:
            pickle.dump((_settings(), bitcode), process.stdin)
            process.stdin.flush()
            answer.put(pickle.load(process.stdout))
        except Exception:  # noqa: BLE001 - all that can befall another process
            answer.put(None)
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # there may be something left to write
            pipe.close()


def is_useful() -> bool:
    """Whether there is a core for a second process, and a Python interpreter to start."""
    interpreter = Path(sys.executable or "").stem.lower()
    return available_cores() > 1 and bool(re.fullmatch(r"pythonw?(_d|\d.*)?", interpreter))
