"""The command line: python -m pointnet COMMAND. Only the module of the command is loaded."""

import importlib
import sys
from collections.abc import Sequence

from pointnet.commands.flags import COMMANDS, command_parser
from pointnet.commands.program import PROG, one_line, whole_program
from pointnet.extras import MissingExtraError
from pointnet.names import check_name, say


@whole_program
def main(words: Sequence[str] | None = None) -> int:
    """The exit code of a command: 0 done, 1 done except for files that cannot be read, 2 refused, 130, 143 stopped."""
    words = sys.argv[1:] if words is None else list(words)
    try:
        if not words:
            raise ValueError(f"name a command, one of {', '.join(COMMANDS)}")
        if not words[0].startswith("-"):
            check_name("command", words[0], COMMANDS)
        if words[0] == "train":
            return int(importlib.import_module("pointnet.commands.train").main(words[1:], f"{PROG} train"))
        flags = command_parser().parse_args(words)
        return int(importlib.import_module(f"pointnet.commands.{flags.command}").run(flags))
    except BrokenPipeError:
        raise
    except (ValueError, OSError, MissingExtraError) as error:
        say(f"{PROG}: error: {one_line(error)}", sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
