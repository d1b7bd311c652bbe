"""The command `foresweep`: its groups, and how errors end (one line, the right exit code)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from foresweep import __version__
from foresweep.cli import (
    best,
    data,
    doctor,
    manage,
    predict,
    report,
    runs,
    spaces,
    status,
    sweep,
    verdict,
)
from foresweep.cli.options import harmless
from foresweep.cli.service import champion, ledger, monitor, serve, update, walkforward
from foresweep.errors import ForesweepError, without_prefix


class _Top(TyperGroup):
    """Every command runs within it, so a wrong value of any option comes by here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = without_prefix(error.message)
            raise


app = typer.Typer(
    name="foresweep",
    cls=_Top,
    help="Sweep, track and judge fine-tuned time-series foundation models on market data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(sweep.sweep)
app.command()(sweep.train)
app.command()(status.sweeps)
app.command()(status.status)
app.command()(status.stop)
app.command()(best.best)
app.command()(runs.runs)
app.command()(best.show)
app.command()(best.logs)
app.command()(runs.reproduce)
app.command()(runs.compare)
app.command()(runs.impact)
app.command()(report.report)
app.command()(report.dashboard)
app.command()(manage.note)
app.command()(manage.tag)
app.command()(manage.rm)
app.command()(predict.ensemble)
app.command()(predict.predict)
app.command()(doctor.doctor)
app.command()(verdict.verdict)
app.command()(verdict.power)
app.command()(verdict.declare)
app.command()(verdict.surrogate)
app.command()(champion.promote)
app.command()(champion.rollback)
app.command()(champion.champion)
app.command()(serve.serve)
app.command()(monitor.monitor)
app.command()(update.update)
app.command()(walkforward.walkforward)
app.add_typer(manage.import_app, name="import")
app.add_typer(manage.export_app, name="export")
app.add_typer(manage.app, name="db")
app.add_typer(ledger.app, name="ledger")
app.add_typer(data.app, name="data")
app.add_typer(spaces.app, name="spaces")


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(f"foresweep {__version__}")
        raise typer.Exit


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line. Ends in SystemExit: 0, 1 (error), 2 (bad usage), 130 (Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the console cannot write is no end
            stream.reconfigure(errors="backslashreplace")
    before = sys.stdout
    try:
        try:
            app(args=None if args is None else list(args), prog_name="foresweep")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where it can be told: a disk may be full
    except ForesweepError as error:
        _end(str(error), error.exit_code, error)
    except SystemExit:
        if sys.stdout is before:
            raise
        _to_nowhere(before)  # click has met a closed pipe
        raise SystemExit(0) from None
    except BrokenPipeError:
        # the reader of a pipe (head, less) has enough; say nothing, as other tools do
        _to_nowhere(before)
        raise SystemExit(0) from None
    except OSError as error:  # of a place that none of the rooms below expected to be refused
        _to_nowhere(before)
        where = f"{error.filename}: " if error.filename is not None else ""
        advice = _WHAT_TO_DO.get(error.errno or 0, _LOOK)
        _end(f"{where}{error.strerror or error}; {advice}", ForesweepError.exit_code, error)


def _end(said: str, code: int, cause: Exception) -> NoReturn:
    """One line, and the exit code."""
    print(f"error: {harmless(' '.join(said.split()))}", file=sys.stderr)
    raise SystemExit(code) from cause


def _to_nowhere(stream: Any) -> None:
    """Python writes what is left once more when it ends, and would complain a second time."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


_LOOK = "look whether that place is there and in order, then try again"
_FULL = "free some space there, or choose another place (--db, --runs, --output)"
_CLOSED = "choose a place that you may write to (--db, --runs, --output), or mend its permissions"
_WHAT_TO_DO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _CLOSED),
}
