"""A command-line parser whose every error is one line on stderr, with the nearest known word for an unknown one."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from pointnet.names import did_you_mean, printable


class OneLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` without abbreviations, whose errors are one line each, with exit code 2."""

    def __init__(self, **settings: Any):
        super().__init__(**{"allow_abbrev": False, "formatter_class": HelpWithDefaults, **settings})

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """All words must be known; the error names the flag that is nearest to an unknown one."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flag = next((word.split("=")[0] for word in unknown if word.startswith("--")), "")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(flag, self._option_string_actions)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        line = printable(" ".join(message.removeprefix("argument ").splitlines()))
        self.exit(2, f"{self.prog}: error: {line}\n")


class HelpWithDefaults(argparse.HelpFormatter):
    """Adds to a flag's help its default, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        without = any(action.default is none for none in (None, False, argparse.SUPPRESS)) or action.default == ""
        return action.help if without or not action.option_strings else f"{action.help} (default: %(default)s)"


def whole_number(word: str) -> int:
    """A type of flag: int, with an error in plain words."""
    try:
        return int(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, got '{word}'") from error


def one_line(error: BaseException) -> str:
    """An error in one printable line; where the system refused a file, which one and why."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{error.filename2 or error.filename}: {error.strerror}")
    return printable(str(error))
