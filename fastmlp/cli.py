"""The ``fastmlp`` command, which needs the extra ``cli``; the commands are in ``_cli/``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say what to install when the packages it needs are absent."""
    try:
        from fastmlp._cli import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("typer", "rich"):
            raise
        print(
            'error: the fastmlp command needs typer and rich: pip install "fastmlp[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    app()


if __name__ == "__main__":
    main()
