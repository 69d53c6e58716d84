"""The commands of the command line; imported only when the extra ``cli`` is there.

Each command is a function in the module of its name, whose arguments are its options::

    base.py       the application: how commands fail, exit codes
    arguments.py  arguments that commands share, and what the shell completes
    config.py     the settings of a training: files, options, and the objects they stand for
    job.py        what train and resume share: the data, and where results go
    models.py     what a model file remembers of its data
    output.py     what is printed: text, tables, JSON

Nothing here imports at the top what only some command needs: ``fastmlp --help`` and the shell's
completion should not wait for it.
"""

from fastmlp._cli import (
    bench,
    datasets,
    evaluate,
    export,
    gradcheck,
    machine,
    plot,
    predict,
    resume,
    summary,
    train,
)
from fastmlp._cli.base import app

__all__ = ["app"]

app.command()(train.train)
app.command()(resume.resume)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(gradcheck.gradcheck)
app.command()(summary.summary)
app.command()(export.export)
app.add_typer(plot.app, name="plot")
app.add_typer(datasets.app, name="datasets")
app.command()(bench.bench)
app.command()(machine.info)
app.command()(machine.warmup)
