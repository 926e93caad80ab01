"""The command `berunda`. It imports nothing heavy: a verb does, once it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from berunda._version import __version__
from berunda.cli.flags import Flag, given_values, signature_of
from berunda.cli.session import INTERRUPTED, Session, exit_code_of
from berunda.cli.verbs import VERBS, Verb

__all__ = ["build_app", "main"]

_COMMON = (
    Flag("quiet", "Print nothing but errors."),
    Flag("debug", "Show the traceback of an error, and the warnings of libraries."),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 the run failed, 2 the input is wrong.

    Args:
        arguments: the words after `berunda`; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    asked = next((word for word in words if not word.startswith("-")), "")
    try:
        code = build_app(asked)(args=words, prog_name="berunda", standalone_mode=False)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        return _usage(error)
    return code if isinstance(code, int) else 0


def _usage(error: Any) -> int:
    """Tell in one line what is wrong with the words, and return the exit code; any other error is raised again.

    Typer comes with click or with a copy of it, so its errors are known by what they offer.
    """
    if type(error).__name__ == "Abort":
        return INTERRUPTED
    if not hasattr(error, "format_message"):
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    place = getattr(getattr(error, "ctx", None), "command_path", "berunda")
    text = " ".join(str(error.format_message()).split()).rstrip(".")
    print(f"berunda: error: {text}; `{place} --help` shows what there is", file=sys.stderr)
    return int(error.exit_code)


def build_app(asked: str) -> typer.Typer:
    """Return the command line; only the verb `asked` for gets its flags, which would slow the others down."""
    app = typer.Typer(
        name="berunda",
        help="Maps from few labels and all the unlabelled Earth-observation imagery around them.",
        epilog="\b\nExamples:\n  berunda demo --out demo-out\n  berunda map --help",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    for verb in VERBS:
        _add(app, verb, verb.flags() if verb.name == asked else ())
    return app


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"berunda {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def _add(app: typer.Typer, verb: Verb, flags: tuple[Flag, ...]) -> None:
    def call(**values: Any) -> None:
        session = Session(quiet=bool(values.pop("quiet")), debug=bool(values.pop("debug")))
        raise typer.Exit(exit_code_of(lambda: verb.run(given_values(values), session), session))

    vars(call)["__signature__"] = signature_of((*flags, *_COMMON))
    title = "Example:" if len(verb.examples) == 1 else "Examples:"
    epilog = "\b\n" + "\n  ".join((title, *verb.examples))
    app.command(verb.name, help=verb.help, short_help=verb.help, epilog=epilog)(call)
