"""The one place that holds JIT options, the fingerprint of the kernel sources, and the disk cache.

`kernel` marks a function that other kernels call; `entry` marks one that Python calls. Only entries
are cached: a cached entry holds the machine code of everything below it. Numba's own cache looks at
the entry's file alone, so ours lives in a folder named by a hash of *all* kernel sources and of
whatever else decides the code: a changed kernel never meets an old binary.
"""

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import platform
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar

import llvmlite
import numba
from llvmlite.binding import ObjectFileRef, create_new_module_pass_manager
from numba import config, njit, types
from numba.core import ir, transforms, typed_passes, untyped_passes
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    _CacheLocator,
)
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.cpu import CPUContext
from numba.core.postproc import PostProcessor
from numba.core.runtime.nrt import rtsys
from numba.core.types.functions import BaseFunction

from .._collector import paused
from . import machine

# Kernels own nothing, so they count no references.
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
    "_nrt": False,
}
JIT_DISABLED = bool(config.DISABLE_JIT)

PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.RewriteSemanticConstants,
    untyped_passes.DeadBranchPrune,
    untyped_passes.GenericRewrites,
    untyped_passes.InlineInlinables,
    untyped_passes.DeadBranchPrune,
    untyped_passes.ReconstructSSA,
    untyped_passes.DeadBranchPrune,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.AnnotateTypes,
    typed_passes.NativeLowering,
    typed_passes.NoPythonBackend,
)


class Pipeline(CompilerBase):  # type: ignore[misc]
    """Numba's compiler without its passes for what kernels do not have.

    Those are closures, `with` blocks, calls of `literally`, loops over tuples of several types,
    raising of exceptions, array expressions, variables that own something until they are deleted.
    """

    def define_pipelines(self) -> list[Any]:
        manager = PassManager("kernel")
        for step in PASSES:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


def jitted(function: Callable[..., Any], **options: Any) -> Any:
    """The function as Numba compiles it when it is called."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined] # asked for twice
    return njit(pipeline_class=Pipeline, **OPTIONS, **options)(function)


class Kernel:
    """A function that Numba is told of when something is compiled that calls it.

    Machine code from the cache calls none by name, and dispatchers for all would take 15 ms.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        functools.update_wrapper(self, function)
        self.py_func = function
        self.targetoptions = options  # where Numba looks for `inline`

    @functools.cached_property
    def dispatcher(self) -> Any:
        dispatcher = jitted(self.py_func, no_cpython_wrapper=True, **self.targetoptions)
        dispatcher.add_overload = functools.partial(_add_overload, dispatcher)
        dispatcher.get_call_template = functools.partial(_template, dispatcher.get_call_template)
        return dispatcher

    @functools.cached_property
    def _twin(self) -> Any:
        return jitted(self.py_func, **self.targetoptions)

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_

    def __call__(self, *args: Any) -> Any:
        return self._twin(*args)


def kernel(function: Callable[..., Any], **options: Any) -> Any:
    """A function that other kernels call; called from Python, a twin with a wrapper is compiled.

    Numba gives each function a wrapper that takes Python's arguments apart, which costs more than
    half of the compilation of a small one.
    """
    return function if JIT_DISABLED else Kernel(function, **options)


def inlined(function: Callable[..., Any]) -> Any:
    """A kernel that LLVM must inline, so that its values stay in registers."""
    return kernel(function, forceinline=True)


def apart(function: Callable[..., Any]) -> Any:
    """A large kernel, called seldom, that becomes machine code in another process meanwhile."""
    _apart.add(f"{function.__module__}.{function.__qualname__}")
    return kernel(function)


def glue(function: Callable[..., Any]) -> Any:
    """A kernel that is merged into its caller before types are inferred."""
    return kernel(function, inline="always")


def _add_overload(dispatcher: Any, result: Any) -> None:
    """Let other kernels call what was compiled, but not Python: there may be no machine code."""
    dispatcher.overloads[tuple(result.signature.args)] = result


def _template(find: Callable[..., Any], args: Any, keywords: Any) -> Any:
    """What a call compiles: for a number that is written there the same as for any other."""
    widened = {name: types.unliteral(kind) for name, kind in keywords.items()}
    return find(tuple(map(types.unliteral, args)), widened)


def fingerprint() -> str:
    """Hash of what decides the machine code, apart from the CPU: Numba's index has that."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    settings = (
        numba.__version__,
        llvmlite.__version__,
        sys.version,
        machine.VECTOR_BYTES,
        machine.HAS_FMA,
        bool(config.BOUNDSCHECK),
        config.OPT,
    )
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Folder of the compiled code: NUMBA_CACHE_DIR if that is set, else the user's cache folder."""
    if config.CACHE_DIR:
        base = Path(config.CACHE_DIR)
    elif os.environ.get("XDG_CACHE_HOME"):
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif platform.system() == "Windows":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif platform.system() == "Darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "fastmlp" / FINGERPRINT


class _Locator(_CacheLocator):  # type: ignore[misc]
    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._line = py_func.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return FINGERPRINT

    def get_disambiguator(self) -> str:
        return str(self._line)

    def ensure_cache_path(self) -> None:
        os.makedirs(self.get_cache_path(), exist_ok=True)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], _: str) -> "_Locator":
        return cls(py_func)


class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
    """A compiled entry as it is kept: with the object code of its parts that were made apart."""

    _locator_classes: ClassVar = [_Locator]

    def reduce(self, result: Any) -> Any:
        objects = [_made_apart[part] for part in _parts_of.get(result.library, [])]
        return objects, super().reduce(result)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        objects, result = payload
        _load_objects(target_context.codegen(), objects)
        return super().rebuild(target_context, result)


class _CheckedFile(IndexDataCacheFile):  # type: ignore[misc]
    """Numba's cache file that knows what its data should be: no other machine code is ever run.

    A checksum tells of damage; the key with the data, of two processes that took the same number.
    """

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (repr(key), data))

    def load(self, key: Any) -> Any:
        name, data = super().load(key) or (None, None)
        return data if name == repr(key) else None

    def _save_data(self, name: str, data: Any) -> None:
        payload = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(hashlib.sha256(payload).digest() + payload)

    def _load_data(self, name: str) -> Any:
        content = Path(self._data_path(name)).read_bytes()
        digest, payload = content[:32], content[32:]
        if hashlib.sha256(payload).digest() != digest:
            raise ValueError(f"{name} is damaged")
        return pickle.loads(payload)


class KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's function cache in our folder; whatever goes wrong with it is a miss, said once."""

    _impl_class = _Impl

    def __init__(self, py_func: Callable[..., Any]) -> None:
        super().__init__(py_func)
        self._cache_file = _CheckedFile(self._cache_path, self._impl.filename_base, FINGERPRINT)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            # Numba's way imports all that it could compile, and SciPy, which takes three times as
            # long as the rest. Machine code needs the runtime only.
            rtsys.initialize(target_context)
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 - unpickling a damaged file can raise anything
            self._start_afresh()
            _warn_once("read", error)
            return None

    def _start_afresh(self) -> None:
        """Empty the index, so that what is compiled now replaces what could not be read."""
        with contextlib.suppress(Exception):
            self.flush()

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001 - what was compiled is still good
            _warn_once("written", error)

    def is_warm(self, sig: Any, codegen: Any) -> bool:
        """Whether the folder lists compiled code for the signature on this CPU."""
        with contextlib.suppress(Exception):
            return self._index_key(sig, codegen) in self._cache_file._load_index()
        return False


_parts: set[Any] = set()  # kernels that were lowered for an entry, each by itself
_apart: set[str] = set()  # names of those that become machine code in another process
_made_apart: dict[Any, bytes] = {}  # the object code of those that have it
_parts_of: dict[Any, list[Any]] = {}  # which of them an entry calls


def _load_objects(codegen: Any, objects: list[bytes]) -> None:
    """Have object code ready for what calls it by name."""
    for code in objects:
        codegen._engine._ee.add_object_file(ObjectFileRef.from_data(code))


def _below(library: Any, left_out: Collection[Any] = ()) -> list[Any]:
    """All that a library calls, directly or not, each behind all that call it.

    Linking leaves out what nothing before has called, and a library that was optimised calls no
    more what it has merged into itself.
    """
    found: dict[Any, None] = {}

    def visit(part: Any) -> None:
        for deeper in part._linking_libraries:
            if deeper not in found and deeper not in left_out:
                visit(deeper)
        found[part] = None

    visit(library)
    return [*reversed(found)][1:]


def _with_all_below(part: Any) -> Any:
    """The module of a kernel for what Numba compiles by itself, which links only what it calls."""
    module = JITCodeLibrary._get_module_for_linking(part).clone()
    for library in _below(part):
        module.link_in(JITCodeLibrary._get_module_for_linking(library), preserve=True)
    return module


@contextlib.contextmanager
def _one_module(entry: Callable[..., Any]) -> Iterator[None]:
    """Have only the entry optimised and turned into machine code, with all kernels below it.

    Numba would do so for every kernel by itself, callees included: ten times for what is called ten
    levels deep. Here kernels come to the entry as they were lowered, and simplified a little. A few
    large ones are modules of their own: with all below them they go to another process as soon as
    they are lowered.
    """
    # both with much that only compiling needs
    from numba.core.inline_closurecall import InlineWorker

    from ._helper import Helper, is_useful, optimize

    package = __name__.rpartition(".")[0]
    translations: dict[Any, Any] = {}
    loaded: list[Any] = []
    resolved: dict[Any, Any] = {}
    sizes: dict[Any, int] = {}
    helper = Helper()
    orders: dict[Any, Callable[[], bytes]] = {}
    names = _apart if is_useful() else set()
    get_executable = CPUContext.get_executable
    finalize = JITCodeLibrary.finalize
    finish = JITCodeLibrary._finalize_final_module
    run_untyped_passes = InlineWorker.run_untyped_passes
    load_registries = CPUContext.load_additional_registries
    post_process = PostProcessor.run
    sizeof = CPUContext.get_abi_sizeof
    resolve = BaseFunction.get_call_type

    def executable(context: Any, library: Any, descriptor: Any, environment: Any) -> Any:
        is_kernel = descriptor.modname.startswith(package)
        if is_kernel and descriptor.qualname != entry.__qualname__:
            _parts.add(library)
            if f"{descriptor.modname}.{descriptor.qualname}" in names:
                module = _with_all_below(library)
                module.get_function(descriptor.llvm_func_name).linkage = "external"
                orders[library] = helper.order(module.as_bitcode())
            return lambda: None  # what kernels know this overload by
        return get_executable(context, library, descriptor, environment)

    def simplify(library: Any, module: Any) -> None:
        """Make a function small before it is linked and merged into others, not yet good."""
        module.data_layout = library._codegen._data_layout
        passes = create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
        passes.add_instruction_combine_pass()
        passes.run(module, library._codegen._pass_builder())

    def finalize_whole(library: Any) -> None:
        """Link all kernels below an entry, each once; a kernel by itself stays as it is."""
        if library in _parts:
            library._finalized = True
            return
        by_name = [part for part in _below(library) if part in orders or part in _made_apart]
        if by_name:
            _parts_of[library] = by_name
        library._linking_libraries = _below(library, by_name)
        for part in library._linking_libraries:
            vars(part).pop("_get_module_for_linking", None)
        finalize(library)

    def finish_whole(library: Any) -> None:
        """Wait for what was ordered of the parts that the entry calls, then give it addresses."""
        ordered = [part for part in _parts_of.get(library, []) if part not in _made_apart]
        for part in ordered:
            _made_apart[part] = orders[part]()
        _load_objects(library._codegen, [_made_apart[part] for part in ordered])
        finish(library)

    def translate(worker: Any, function: Any) -> Any:
        """Numba's IR of glue, made once, not for each place that it is merged into."""
        if function not in translations:
            translations[function] = run_untyped_passes(worker, function)
        return translations[function]

    def load_once(context: Any) -> None:
        """Look for Numba's own extensions, but not again for each function."""
        if context not in loaded:
            loaded.append(context)
            load_registries(context)

    def resolve_once(function: Any, context: Any, args: Any, keywords: Any) -> Any:
        """The signature of a call of one of Numba's functions or operators, or of an intrinsic."""
        key = function, tuple(args), tuple(keywords.items())
        if key not in resolved:
            resolved[key] = resolve(function, context, args, keywords)
        return resolved[key]

    def sizeof_once(context: Any, kind: Any) -> Any:
        """The size of an LLVM type, for which a module of its own is parsed."""
        if kind not in sizes:
            sizes[kind] = sizeof(context, kind)
        return sizes[kind]

    def skip_lifetimes(processor: Any, emit_dels: bool = False, **options: Any) -> None:
        """Look for the last use of each variable only where that is asked for: not in a kernel."""
        if emit_dels:
            post_process(processor, emit_dels, **options)
        else:
            blocks = processor.func_ir.blocks
            processor.func_ir.blocks = transforms.canonicalize_cfg(blocks)

    def copied_variables(variables: Any, _: Any) -> Any:
        same = ir.VarMap()
        same._con.update(variables._con)
        return same

    replaced = {
        (CPUContext, "get_executable"): executable,
        (CPUContext, "get_abi_sizeof"): sizeof_once,
        (CPUContext, "load_additional_registries"): load_once,
        (PostProcessor, "run"): skip_lifetimes,
        (BaseFunction, "get_call_type"): resolve_once,
        # Glue is copied wherever it is merged into; what never changes need not be.
        (ir.Var, "__deepcopy__"): lambda variable, _: variable,
        (ir.Loc, "__deepcopy__"): lambda place, _: place,
        (ir.VarMap, "__deepcopy__"): copied_variables,
        (JITCodeLibrary, "_optimize_functions"): simplify,
        (JITCodeLibrary, "_optimize_final_module"): optimize,
        (JITCodeLibrary, "finalize"): finalize_whole,
        (JITCodeLibrary, "_finalize_final_module"): finish_whole,
        (InlineWorker, "run_untyped_passes"): translate,
    }
    # locked, so that what is replaced is Numba's own
    with global_compiler_lock, paused(), contextlib.closing(helper):
        originals = {(kind, name): vars(kind).get(name) for kind, name in replaced}
        try:
            for place, function in replaced.items():
                setattr(*place, function)
            yield
        finally:
            for (kind, name), function in originals.items():
                if function is None:
                    delattr(kind, name)
                else:
                    setattr(kind, name, function)
            for part in _parts:
                part._get_module_for_linking = functools.partial(_with_all_below, part)


_warnings: list[str] = []


def _warn_once(action: str, error: Exception) -> None:
    if not _warnings:
        _warnings.append(action)
        warnings.warn(
            f"the cache of compiled kernels in {cache_folder()} could not be {action} "
            f"({type(error).__name__}: {error}); compiling without it",
            RuntimeWarning,
            stacklevel=2,
        )


def entry(function: Callable[..., Any]) -> Any:
    """A function that Python calls, compiled in one module and cached on disk."""
    dispatcher = jitted(function)
    if not JIT_DISABLED:
        dispatcher._cache = KernelCache(function)
        compiler = dispatcher._compiler
        compiler.compile = _one_module(function)(compiler.compile)
    return dispatcher


FINGERPRINT = fingerprint()
