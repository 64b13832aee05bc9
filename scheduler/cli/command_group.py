"""The outermost group: every error becomes a line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, Final

import typer
from typer.core import TyperGroup

from scheduler.cli.failures import BAD_INPUT, DONE, FAILED, INTERRUPTED, exit_code_of, explain, explain_unexpected
from scheduler.cli.output import write_message
from scheduler.domain.errors import SchedulerError

PROGRAM: Final = "timeout-scheduler"
TRACEBACK: Final = "--traceback"
_GLOBAL_OPTIONS: Final = ("--database-url", "--env-file", "--schema")


class CommandGroup(TyperGroup):
    """Global options may stand before or after the command; the process ends with 0, 1, 2 or 130."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does, once the global options stand first."""
        return super().parse_args(ctx, global_options_first(args))

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Run one command line, and leave with its exit code. It has one name, however it was started."""
        _never_fail_to_encode()
        sys.exit(_flushed(self._run(list(sys.argv[1:] if args is None else args))))

    def _run(self, args: list[str]) -> int:
        try:
            result = super().main(args, PROGRAM, standalone_mode=False)
        except typer.TyperException as error:
            return _say_usage(error)
        except SchedulerError as error:
            return _say(error)
        except (KeyboardInterrupt, typer.Abort):
            return INTERRUPTED
        except BrokenPipeError:
            return FAILED
        except Exception as error:  # noqa: BLE001 - the user gets a line, whatever it was
            if TRACEBACK in args:
                traceback.print_exc()
            write_message(f"error: {explain_unexpected(error)}")
            return FAILED
        return result if isinstance(result, int) else DONE


def _say(error: SchedulerError) -> int:
    first, *others = explain(error)
    write_message(f"error: {first}")
    for line in others:
        write_message(line)
    return exit_code_of(error)


def _say_usage(error: typer.TyperException) -> int:
    """Click's own complaint in our form; a group called without a command shows its help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error.format_message()}\n")
        return BAD_INPUT
    write_message(f"error: {error.format_message().replace('Value error, ', '')}")
    if context is not None:
        write_message(f"Try '{context.command_path} --help'.")
    return error.exit_code


def global_options_first(args: Sequence[str]) -> list[str]:
    """The same command line with the global options, and what they are given, in front."""
    first: list[str] = []
    others: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        if arg == "--":
            return [*first, *others, arg, *remaining]
        name, separator, _ = arg.partition("=")
        if arg == TRACEBACK or (name in _GLOBAL_OPTIONS and separator):
            first.append(arg)
        elif arg in _GLOBAL_OPTIONS:
            first += [arg, *(value for value in [next(remaining, None)] if value is not None)]
        else:
            others.append(arg)
    return [*first, *others]


def _never_fail_to_encode() -> None:
    """A terminal that can't show a character gets its escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Write out what is buffered; whoever reads may be gone (`| head`), and that is no news to anybody."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code
