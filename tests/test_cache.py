"""The cache of compiled kernels: warm starts, never a stale result, and no harm from bad files."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import config

import fastmlp as fm
from fastmlp.kernels import _helper, _jit, machine

pytestmark = pytest.mark.jit

# The whole program, in processes of their own. Each cold compilation takes ten seconds or more:
# there are three in this module.

SCRIPT = """
import json, os, sys, time, warnings

if "one core" in sys.argv and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

from numba.core import event

def softplus():  # a kernel that calls others, by itself
    from fastmlp.kernels import activation

    x = np.zeros((1, 64), np.float32)
    activation.activation_forward(x, x, activation.CODES["softplus"], 0.0, x)
    return x[0, :2].tolist()


begin = time.perf_counter()
with event.install_recorder("numba:compile") as recorder:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        import numpy as np
        import fastmlp as fm

        made_here = []
        if "count parts" in sys.argv:
            from fastmlp.kernels import _helper
            emit = _helper.emit
            _helper.emit = lambda bitcode: made_here.append(bitcode) or emit(bitcode)
        first = softplus() if "kernel first" in sys.argv else None
        before = {"warm": fm.kernels.info()["warm"], "compiled": fm.kernels.compiled("float32")}
        net = fm.MLP([1, 1, 1], activation="softplus", loss="squared_error")
        net.theta[...] = 0.0
        net.weights[1][...] = 1.0
        softplus_of_0 = net.predict([[0.0]]).item() if "predict" in sys.argv else None
        history = fm.fit(net, np.ones((100, 1)), np.ones((100, 1))) if "fit" in sys.argv else None
has_library = "numba.np.arraymath" in sys.modules
compilations = len(recorder.buffer) // 2
norm = None
if "norm" in sys.argv:
    import numba

    norm = numba.njit(lambda x: np.linalg.norm(np.sort(x)[1:]))(np.array([4.0, 0.0, 3.0]))
kernel = softplus() if "kernel" in sys.argv else first  # it lies below what was compiled
print(json.dumps({
    "softplus(0)": softplus_of_0,
    "losses": history and history.loss,
    "compile_seconds": history and history.compile_seconds,
    "before": before,
    "after": {"warm": fm.kernels.info()["warm"], "compiled": fm.kernels.compiled("float32")},
    "again": fm.kernels.warmup("float32") if fm.kernels.compiled("float32") else None,
    "compilations": compilations,
    "parts made here": len(made_here),
    "has_library": has_library,
    "norm": norm,
    "kernel": kernel,
    "warnings": [f"{w.category.__name__}: {w.message}" for w in said],
    "folder": fm.kernels.info()["cache_folder"],
    "package": fm.__path__[0],
    "seconds": time.perf_counter() - begin,
}))
"""


def process(*actions: str, cache: Path, **environment: str) -> dict[str, Any]:
    """Import fastmlp in a new process, predict or fit there, and return what it has to say."""
    with tempfile.TemporaryDirectory() as empty:  # what is there comes before PYTHONPATH
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *actions],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=empty,
            env={**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment},
        )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@dataclass(frozen=True)
class Cold:
    """A cache folder that one process filled, and what that process said."""

    folder: Path
    result: dict[str, Any]

    def copy(self, folder: Path) -> Path:
        shutil.copytree(self.folder, folder)
        return folder


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Cold:
    folder = tmp_path_factory.mktemp("cold") / "cache"
    return Cold(folder, process("predict", "fit", "kernel", "count parts", cache=folder))


def test_cold_process(cold: Cold) -> None:
    result = cold.result
    print(f"compiled in {result['compile_seconds']:.1f} s")
    assert result["before"] == {"warm": {"float32": False, "float64": False}, "compiled": False}
    assert result["after"] == {"warm": {"float32": True, "float64": False}, "compiled": True}
    assert result["compilations"] > 0
    assert result["kernel"] == pytest.approx([np.log(2.0)] * 2, rel=1e-6)
    assert result["compile_seconds"] > result["again"]
    assert result["again"] < 0.1
    assert result["warnings"] == []
    folder = Path(result["folder"])
    assert folder == cold.folder / "fastmlp" / _jit.FINGERPRINT
    assert {path.suffix for path in folder.iterdir()} == {".nbi", ".nbc"}
    assert parts_of(folder) == [0, len(_jit._apart) if _helper.is_useful() else 0]
    assert result["parts made here"] == 0


def parts_of(folder: Path) -> list[int]:
    """How many parts made apart each cached entry has, in rising order."""
    contents = [pickle.loads(path.read_bytes()[32:]) for path in folder.glob("*.nbc")]
    return sorted(len(objects) for _, (objects, _) in contents)


def test_warm_process(cold: Cold, tmp_path: Path) -> None:
    result = process("predict", "fit", cache=cold.copy(tmp_path / "cache"))
    print(f"import, predict and fit in {result['seconds']:.1f} s")
    assert result["before"] == {"warm": {"float32": True, "float64": False}, "compiled": False}
    assert result["after"]["compiled"]
    assert result["compilations"] == 0
    assert result["warnings"] == []
    assert result["losses"] == cold.result["losses"]
    assert not result["has_library"]  # what Numba could compile, with SciPy: 0.3 s
    assert result["softplus(0)"] == pytest.approx(np.log(2.0), rel=1e-6)


def test_kernel_that_was_compiled_before_the_program(cold: Cold, tmp_path: Path) -> None:
    """It has merged others into itself, which the cached program needs all the same.

    With one core, all of the program is one module; the bits are the same.
    """
    first = process("kernel first", "one core", "fit", cache=tmp_path)
    assert first["kernel"] == pytest.approx([np.log(2.0)] * 2, rel=1e-6)
    again = process("fit", cache=tmp_path)
    assert again["compilations"] == 0
    assert again["losses"] == first["losses"] == cold.result["losses"]


def test_numba_compiles_after_a_warm_start(cold: Cold, tmp_path: Path) -> None:
    """Its own functions, whose modules the start left out."""
    result = process("fit", "norm", cache=cold.copy(tmp_path / "cache"))
    assert not result["has_library"]
    assert result["norm"] == 5.0


def copy_of_package(folder: Path) -> Path:
    """The installed package in another place, which comes first on PYTHONPATH."""
    package = folder / "fastmlp"
    skip = shutil.ignore_patterns("__pycache__", "*.npz")
    shutil.copytree(fm.__path__[0], package, ignore=skip)
    if not (package / "kernels").exists():  # an editable installation has them elsewhere
        shutil.copytree(fm.kernels.__path__[0], package / "kernels", ignore=skip)
    return package


def test_changed_kernel_is_never_stale(cold: Cold, tmp_path: Path) -> None:
    """A constant deep down in a function that the cached one calls, in another file."""
    cache = cold.copy(tmp_path / "cache")
    package = copy_of_package(tmp_path / "copy")
    path = {"PYTHONPATH": str(package.parent)}
    unchanged = process(cache=cache, **path)
    assert unchanged["package"] == str(package)
    assert unchanged["folder"] == str(cache / "fastmlp" / _jit.FINGERPRINT)
    assert unchanged["before"]["warm"]["float32"]

    source = package / "kernels" / "elementwise.py"
    text = source.read_text("utf-8")
    assert text.count("LN2_LOW_SINGLE = 0.693359375,") == 1
    source.write_text(text.replace("= 0.693359375,", "= 0.793359375,"), "utf-8")
    changed = process(cache=cache, **path)
    assert changed["folder"] != unchanged["folder"]
    assert not changed["before"]["warm"]["float32"]
    # not even if the old files were in the new folder
    shutil.copytree(unchanged["folder"], changed["folder"])
    result = process("predict", cache=cache, **path)
    assert result["compilations"] > 0
    assert result["softplus(0)"] == pytest.approx(np.log(2.0) + 0.1, rel=1e-6)
    assert result["warnings"] == []

    source.write_text(text, "utf-8")
    again = process("predict", cache=cache, **path)
    assert again["compilations"] == 0
    assert again["softplus(0)"] == pytest.approx(np.log(2.0), rel=1e-6)


@pytest.mark.parametrize("make", ["touch", "mkdir"])
def test_import_does_not_mind_a_folder_that_cannot_be(tmp_path: Path, make: str) -> None:
    """A file where a folder should be; and a folder whose index is one: nothing is said yet."""
    blocked = tmp_path / "blocked"
    getattr(blocked, make)()
    cache = blocked / "cache" if make == "touch" else blocked
    result = process(cache=cache, PYTHONWARNINGS="error")
    assert result["before"]["warm"] == {"float32": False, "float64": False}
    assert result["folder"] == str(cache / "fastmlp" / _jit.FINGERPRINT)


SCRIPT_OF_FINGERPRINTS = """
import sys
from pathlib import Path
from fastmlp.kernels import _jit

folder = Path(_jit.__file__).parent
assert folder == Path(sys.argv[1])
first = _jit.fingerprint()
assert first == _jit.FINGERPRINT
seen = {first}


def expect_another(kind):
    found = _jit.fingerprint()
    assert found not in seen, kind
    seen.add(found)


for source in sorted(folder.glob("*.py")):
    content = source.read_bytes()
    source.write_bytes(content + b"# one comment more\\n")
    expect_another(source.name)
    source.write_bytes(content)
    assert _jit.fingerprint() == first
    source.rename(folder / "renamed.py")
    expect_another(source.name)
    (folder / "renamed.py").rename(source)
(folder / "added.py").touch()
expect_another("a new file")
print(len(seen))
"""


def test_every_kernel_source_is_in_the_fingerprint(tmp_path: Path) -> None:
    folder = copy_of_package(tmp_path) / "kernels"
    sources = len(list(folder.glob("*.py")))
    assert sources > 10
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT_OF_FINGERPRINTS, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 2 * sources + 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FASTMLP_VECTOR_BYTES", "16" if machine.VECTOR_BYTES != 16 else "32"),
        ("NUMBA_BOUNDSCHECK", "0" if config.BOUNDSCHECK else "1"),
        ("NUMBA_OPT", "2" if config.OPT == 1 else "1"),
    ],
)
def test_settings_are_in_the_fingerprint(tmp_path: Path, name: str, value: str) -> None:
    result = process(cache=tmp_path, **{name: value})
    assert result["folder"].startswith(str(tmp_path))
    assert result["folder"] != str(tmp_path / "fastmlp" / _jit.FINGERPRINT)


# The cache by itself, with a function that compiles in no time


def add_one(x: Any) -> None:
    for i in range(x.shape[0]):
        x[i] += 1


@dataclass
class Run:
    """What came out of the function in one process, and out of its cache."""

    results: list[list[float]]
    hits: int
    misses: int
    said: list[str]


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Call the function as a new process would: nothing loaded, nothing said."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))

    def run(*dtypes: str, action: str = "always") -> Run:
        monkeypatch.setattr(_jit, "_warnings", [])
        function = _jit.entry(add_one)
        results = []
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter(action)  # type: ignore[arg-type]
            for dtype in dtypes:
                x = np.arange(3, dtype=dtype)
                function(x)
                assert x.dtype == dtype
                results.append(x.tolist())
        stats = function.stats
        return Run(
            results,
            sum(stats.cache_hits.values()),
            sum(stats.cache_misses.values()),
            [f"{w.category.__name__}: {w.message}" for w in said],
        )

    return run


RIGHT = [[1.0, 2.0, 3.0]] * 2
BOTH = ("float32", "float64")


def test_small_function_is_cached(start: Start) -> None:
    assert start(*BOTH) == Run(RIGHT, 0, 2, [])
    assert start(*BOTH) == Run(RIGHT, 2, 0, [])


def cut(suffix: str, length: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for path in folder.rglob(f"*{suffix}"):
            content = path.read_bytes()
            path.write_bytes(content[: int(length * len(content))])

    return damage


def flip(suffix: str, place: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for path in folder.rglob(f"*{suffix}"):
            content = bytearray(path.read_bytes())
            content[int(place * (len(content) - 1))] ^= 0x10
            path.write_bytes(content)

    return damage


def fill_with(suffix: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for path in folder.rglob(f"*{suffix}"):
            path.write_bytes(content)

    return damage


DAMAGES = {
    "empty index": cut(".nbi", 0.0),
    "index cut off early": cut(".nbi", 0.02),
    "index cut off": cut(".nbi", 0.5),
    "index of noise": fill_with(".nbi", bytes(range(256))),
    "index of zeros": fill_with(".nbi", bytes(4096)),
    "empty data": cut(".nbc", 0.0),
    "data cut off": cut(".nbc", 0.9),
    "checksum cut off": fill_with(".nbc", b"short"),
    "flipped bit in the checksum": flip(".nbc", 0.0),
    "flipped bit in the middle": flip(".nbc", 0.5),
    "flipped bit at the end": flip(".nbc", 1.0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(start: Start, tmp_path: Path, damage: str) -> None:
    start(*BOTH)
    DAMAGES[damage](tmp_path)
    run = start(*BOTH)
    assert run.results == RIGHT
    assert (run.hits, run.misses) == (0, 2)
    (said,) = run.said
    assert said.startswith("RuntimeWarning: ")
    assert str(_jit.cache_folder()) in said
    assert start(*BOTH) == Run(RIGHT, 2, 0, [])  # repaired


@pytest.mark.parametrize("damage", ["index cut off", "flipped bit in the middle"])
def test_damaged_files_are_repaired_where_warnings_are_errors(
    start: Start, tmp_path: Path, damage: str
) -> None:
    start(*BOTH)
    DAMAGES[damage](tmp_path)
    with pytest.raises(RuntimeWarning, match="cache of compiled kernels"):
        start("float32", action="error")
    assert start(*BOTH, action="error").results == RIGHT


def test_exchanged_data(start: Start, tmp_path: Path) -> None:
    """What two processes leave that began to fill the cache at once, each with another dtype."""
    start(*BOTH)
    first, second = sorted(tmp_path.rglob("*.nbc"))
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert start(*BOTH).results == RIGHT
    assert start(*BOTH).results == RIGHT


def test_removed_data(start: Start, tmp_path: Path) -> None:
    """As a tool that cleans up old files leaves it: compiled again, nothing to warn of."""
    start(*BOTH)
    next(iter(tmp_path.rglob("*.nbc"))).unlink()
    assert start(*BOTH) == Run(RIGHT, 1, 1, [])
    assert start(*BOTH) == Run(RIGHT, 2, 0, [])


def block_folder(folder: Path) -> None:
    (folder / "fastmlp").write_text("not a folder")


def block_index(folder: Path) -> None:
    (index,) = folder.rglob("*.nbi")
    index.unlink()
    index.mkdir()


@pytest.mark.parametrize("blocked", [False, True])
def test_unusable_folder(start: Start, tmp_path: Path, blocked: bool) -> None:
    """A file where the folder should be, or a folder where a file should be: one warning."""
    if blocked:
        block_folder(tmp_path)
    else:
        start("float32")
        block_index(tmp_path)
    for _ in range(2):  # the second process has nothing to load either
        run = start(*BOTH)
        assert run.results == RIGHT
        assert (run.hits, run.misses) == (0, 2)
        (said,) = run.said
        assert said.startswith("RuntimeWarning: ")
        assert str(_jit.cache_folder()) in said


# The other functions


def test_info() -> None:
    fm.kernels.warmup("float32")
    info = fm.kernels.info()
    assert info["cache_folder"] == str(_jit.cache_folder())
    assert info["fingerprint"] == _jit.FINGERPRINT == Path(info["cache_folder"]).name
    assert info["vector_bytes"] == machine.VECTOR_BYTES
    assert info["fused_multiply_add"] == machine.HAS_FMA
    rows = min(machine.ACCUMULATORS // 3, machine.TILE_ROWS)
    assert info["tile"] == f"{rows} rows x 3 vectors"
    assert info["python"] == sys.version.split()[0]
    assert set(info["cpu_features"]) <= {name for name, has in machine.FEATURES.items() if has}
    assert set(info["warm"]) == {"float32", "float64"}
    assert info["warm"]["float32"]


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.dtype("float64")])
def test_warmup(dtype: Any) -> None:
    assert fm.kernels.warmup(dtype) >= 0.0
    assert fm.kernels.compiled(dtype)
    assert fm.kernels.is_warm(dtype)
    begin = time.perf_counter()
    assert fm.kernels.warmup(dtype) <= time.perf_counter() - begin < 0.5  # nothing is left to do


@pytest.mark.parametrize("dtype", ["float16", "int32", np.complex128, "no dtype", object()])
def test_warmup_refuses_other_dtypes(dtype: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="dtype must be one of float32, float64"):
        fm.kernels.warmup(dtype)


@pytest.mark.parametrize(
    ("system", "variables", "folder"),
    [
        ("Linux", {}, "home/.cache"),
        ("Linux", {"XDG_CACHE_HOME": "xdg"}, "xdg"),
        ("Darwin", {}, "home/Library/Caches"),
        ("Windows", {"LOCALAPPDATA": "local"}, "local"),
        ("Windows", {}, "home"),
    ],
)
def test_cache_folder(
    monkeypatch: pytest.MonkeyPatch, system: str, variables: dict[str, str], folder: str
) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _jit.cache_folder() == Path(folder) / "fastmlp" / _jit.FINGERPRINT
    monkeypatch.setattr(config, "CACHE_DIR", "numba")
    assert _jit.cache_folder() == Path("numba") / "fastmlp" / _jit.FINGERPRINT
