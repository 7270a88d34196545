"""Thousands of damaged files per format: how many are read, and how many are refused.

python -m benchmarks.fuzz [--mutants 3000] [--formats OFF PLY ...]
"""

import argparse
import sys
from collections.abc import Sequence

from tests.mutants import read_mutants
from tests.whole_files import FORMATS


def main(arguments: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--mutants", type=int, default=3000)
    flags.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    args = flags.parse_args(arguments)
    print("| format | mutants | read | refused |\n|-|-|-|-|")
    failures: list[str] = []
    for kind in args.formats:
        report = read_mutants(kind, args.mutants)
        failures += report.failures
        print(f"| {kind} | {args.mutants:,} | {report.read:,} | {report.refused:,} |", flush=True)
    print("\n".join(failures) or "No crash, no hang, no other error.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
