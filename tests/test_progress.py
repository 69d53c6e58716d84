"""What a training run shows while it goes on, and the history that it returns."""

import re
import sys

import pytest

import fastmlp as fm
from fastmlp.progress import Progress


def progress(
    enabled: bool = True, *, epochs: int = 3, classifier: bool = True, validation: bool = True
) -> Progress:
    return Progress(
        enabled, epochs=epochs, samples_per_epoch=100, classifier=classifier, validation=validation
    )


def history(epochs: int) -> fm.History:
    return fm.History(
        loss=[0.5, 0.25, 0.125][:epochs],
        accuracy=[0.7, 0.8, 0.9][:epochs],
        val_loss=[0.6, 0.35, 0.225][:epochs],
        val_accuracy=[0.6, 0.7, 0.8][:epochs],
    )


Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rich take standard error for a terminal."""
    pytest.importorskip("rich", reason="the bar needs the extra cli")
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm-256color"), ("COLUMNS", "100")):
        monkeypatch.setenv(name, value)


def test_disabled_prints_nothing(capsys: Capture, terminal: None) -> None:
    with progress(enabled=False) as bar:
        bar.compiling("compiling kernels")
        bar.update(0, 50, fm.History())
        bar.update(3, 0, history(3))
    assert capsys.readouterr() == ("", "")


def test_a_terminal_is_told_that_kernels_compile(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, also where no progress is asked for: it takes ten seconds."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(enabled=False) as bar:
        bar.compiling("compiling kernels (float32), once on this machine: 0.1 s")
        bar.compiling("compiling kernels (float32), once on this machine: 0.2 s")
        bar.update(3, 0, history(3))
    told = "fastmlp: compiling kernels (float32), once on this machine\n"
    assert capsys.readouterr() == ("", told)


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with progress(enabled=False) as bar:
        bar.compiling("compiling kernels")


def test_nothing_happens(capsys: Capture) -> None:
    with progress():
        pass
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_notebook(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm", reason="the bar needs the extra notebook")
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with progress() as bar:
        bar.compiling("compiling kernels")
        bar.update(0, 50, fm.History())
        bar.update(1, 0, history(1))
        bar.update(3, 0, history(3))
    out, err = capsys.readouterr()
    assert out == ""
    assert "compiling kernels" in err
    last = err.rstrip("\n").split("\r")[-1]
    assert "epoch 3/3: 100%" in last
    assert "300/300" in last
    assert "loss 0.1250 val 0.2250 val_acc 80.00 %" in last


def test_a_notebook_without_tqdm(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with progress() as bar:
        bar.update(3, 0, history(3))
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_what_was_shown_before_is_not_again(capsys: Capture) -> None:
    bar = Progress(True, epochs=3, samples_per_epoch=100, classifier=True, validation=True, begun=2)
    with bar:
        bar.update(3, 0, history(3))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 3/3")


def test_one_line_an_epoch(capsys: Capture) -> None:
    with progress() as bar:
        bar.compiling("compiling kernels (float32): 0.1 s")
        bar.compiling("compiling kernels (float32): 0.2 s")
        bar.update(0, 0, fm.History())
        bar.update(0, 50, fm.History())
        bar.update(1, 10, history(1))
        bar.update(1, 90, history(1))
        bar.update(3, 0, history(3))
    output, errors = capsys.readouterr()
    assert output == ""
    pace = r"  \S+ samples/s"
    assert re.fullmatch(
        "compiling kernels \\(float32\\)\n"
        f"epoch 1/3  loss 0.5000  val 0.6000  val_acc 60.00 %{pace}  \\d+ s left\n"
        f"epoch 2/3  loss 0.2500  val 0.3500  val_acc 70.00 %{pace}\n"
        f"epoch 3/3  loss 0.1250  val 0.2250  val_acc 80.00 %{pace}\n",
        errors,
    )


@pytest.mark.parametrize(
    ("classifier", "validation", "line"),
    [
        (False, False, "epoch 1/3  loss 0.5000\n"),
        (False, True, "epoch 1/3  loss 0.5000  val 0.6000\n"),
        (True, False, "epoch 1/3  loss 0.5000  acc 70.00 %\n"),
        (True, True, "epoch 1/3  loss 0.5000  val 0.6000  val_acc 60.00 %\n"),
    ],
)
def test_what_a_line_says(capsys: Capture, classifier: bool, validation: bool, line: str) -> None:
    with progress(classifier=classifier, validation=validation) as bar:
        bar.update(1, 0, history(1))
    assert capsys.readouterr().err == line


def test_unfinished_epoch_is_not_shown(capsys: Capture) -> None:
    unfinished = history(1)
    unfinished.val_accuracy.clear()
    with progress() as bar:
        bar.update(1, 0, unfinished)
        assert capsys.readouterr().err == ""
        unfinished.val_accuracy.append(0.6)
    assert capsys.readouterr().err.startswith("epoch 1/3 ")


def test_run_that_fails(capsys: Capture) -> None:
    bar = progress()
    bar.update(1, 50, history(1))
    with pytest.raises(KeyError), bar:
        raise KeyError
    assert capsys.readouterr().err.count("\n") == 1


def shown(text: str) -> str:
    """Return what remains without the control codes of the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_bar(capsys: Capture, terminal: None) -> None:
    with progress() as bar:
        bar.compiling("compiling kernels (float32): 0.1 s")
        bar.update(0, 0, fm.History())
        bar.update(1, 50, history(1))
        bar.update(3, 0, history(3))
    output, errors = capsys.readouterr()
    assert output == ""
    last = [line for line in re.split(r"[\r\n]+", shown(errors)) if line.strip()][-1]
    pattern = r"epoch 3/3 ━+ loss 0.1250 val 0.2250 val_acc 80.00 % \S+ samples/s"
    assert re.fullmatch(pattern, last.strip())
    assert "compiling kernels (float32): 0.1 s" in shown(errors)
    assert errors.rstrip().endswith("\x1b[?25h")  # the cursor is visible again


def test_bar_of_a_run_that_stops_while_compiling(capsys: Capture, terminal: None) -> None:
    bar = progress()
    bar.compiling("compiling [kernels]")
    with pytest.raises(KeyboardInterrupt), bar:
        raise KeyboardInterrupt
    errors = capsys.readouterr().err
    assert "compiling [kernels]" in shown(errors)
    assert "epoch" not in errors


def test_terminal_without_rich(
    capsys: Capture, terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with progress() as bar:
        bar.update(1, 0, history(1))
    assert capsys.readouterr().err == "epoch 1/3  loss 0.5000  val 0.6000  val_acc 60.00 %\n"


def test_terminal_that_cannot_move_its_cursor(
    capsys: Capture, terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with progress() as bar:
        bar.update(1, 0, history(1))
    assert capsys.readouterr().err == "epoch 1/3  loss 0.5000  val 0.6000  val_acc 60.00 %\n"


@pytest.mark.parametrize(
    ("seconds", "speed", "left"),
    [
        (10.0, "10 samples/s", "20 s left"),
        (50.0, "2 samples/s", "1 min 40 s left"),
        (5000.0, "0.02 samples/s", "2 h 46 min left"),
        (0.05, "2k samples/s", "1 s left"),
        (0.00008, "1.25M samples/s", "1 s left"),
    ],
)
def test_pace(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, seconds: float, speed: str, left: str
) -> None:
    clock = iter([100.0, *[100.0 + seconds] * 9])
    monkeypatch.setattr("fastmlp.progress.time.perf_counter", lambda: next(clock))
    with progress(validation=False) as bar:
        bar.update(0, 0, fm.History())
        bar.update(1, 0, history(1))
    assert capsys.readouterr().err == f"epoch 1/3  loss 0.5000  acc 70.00 %  {speed}  {left}\n"


def test_fit_shows_its_progress(capsys: Capture) -> None:
    net = fm.MLP([2, 3, 2], seed=0)
    X, y = [[0.0, 1.0], [1.0, 0.0]] * 8, [0, 1] * 8
    fm.fit(net, X, y, epochs=2, batch_size=4, validation=0.25)
    assert capsys.readouterr() == ("", "")
    fm.fit(net, X, y, epochs=2, batch_size=4, validation=0.25, progress=True)
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.search("epoch 1/2  loss .*\nepoch 2/2  loss ", errors)


# The history


def test_history_as_a_table() -> None:
    assert str(history(2)) == (
        "epoch    loss  accuracy  val_loss  val_accuracy\n"
        "    1  0.5000    0.7000    0.6000        0.6000\n"
        "    2  0.2500    0.8000    0.3500        0.7000"
    )
    assert str(fm.History(loss=[12345.0, 0.0, 1e-5, float("nan")])) == (
        "epoch     loss\n    1  1.2e+04\n    2   0.0000\n    3  1.0e-05\n    4      nan"
    )
    assert str(fm.History()) == "epoch"


def test_table_of_a_long_history() -> None:
    lines = str(fm.History(loss=[float(i) for i in range(1000)])).splitlines()
    assert len(lines) == 22
    assert lines[10].split() == ["10", "9.0000"]
    assert lines[11].split() == ["...", "..."]
    assert lines[12].split() == ["991", "990.0000"]
    assert lines[21].split() == ["1000", "999.0000"]


def test_history_in_one_line() -> None:
    one = fm.History(loss=[0.5], accuracy=[0.75], seconds=0.123, interrupted=True)
    assert repr(one) == "History(1 epoch in 0.12 s, loss=0.5000, accuracy=0.7500, interrupted)"
    assert repr(fm.History()) == "History(0 epochs in 0.00 s)"


def test_length_of_a_history() -> None:
    assert [len(fm.History()), len(history(3))] == [0, 3]
