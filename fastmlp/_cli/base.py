"""The application that all commands belong to: how they fail, and with which exit code."""

import warnings
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

import fastmlp as fm

__all__ = ["CHECK_FAILED", "INTERRUPTED", "USER_ERROR", "app", "errors", "group"]

CHECK_FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130  # as shells report a process that SIGINT ended

_UsageError: Any = typer.BadParameter.__base__  # of click, which newer versions of typer contain

_EPILOG = (
    "Exit codes: 0 done; 1 a check failed or a training diverged; 2 wrong options, data or files, "
    "or a missing package; 130 interrupted. A command that fails says why in one line."
)

errors = Console(stderr=True, highlight=False)


class _Commands(TyperGroup):
    """Commands whose foreseeable errors end in one line on standard error, not in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except _UsageError as error:
            if not error.format_message():  # a group without a command, which has shown its help
                raise typer.Exit(USER_ERROR) from error
            command = error.ctx.command_path if error.ctx else "fastmlp"
            code = _fail(f"{error.format_message()} (try '{command} --help')", USER_ERROR)
            raise code from error
        except (ValueError, TypeError, OSError, ImportError) as error:
            if ctx.params["debug"]:
                raise
            raise _fail(_one_line(error), USER_ERROR) from error
        except (fm.DivergenceError, FloatingPointError) as error:
            if ctx.params["debug"]:
                raise
            raise _fail(_one_line(error), CHECK_FAILED) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=_Commands,
    help="Train and run multilayer perceptrons fast on a CPU.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def group(help: str) -> typer.Typer:
    """Return an application for the commands of a command."""
    return typer.Typer(help=help, no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastmlp {fm.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning in one line, without the place in the source that Python shows."""
    errors.print(f"[yellow]warning: {escape(' '.join(str(message).split()))}[/]", soft_wrap=True)


def _fail(text: str, code: int) -> typer.Exit:
    errors.print(f"[red]error: {escape(text)}[/]", soft_wrap=True)
    return typer.Exit(code)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror is not None and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
