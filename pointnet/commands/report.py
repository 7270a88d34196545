"""`python -m pointnet report`: a page about a trained run."""

import sys
from argparse import Namespace

from pointnet.datasets.lines import all_lines
from pointnet.devices import keep_freed_memory, use_threads
from pointnet.names import say
from pointnet.pages.report import write_report
from pointnet.pages.report_sections import SPLIT_NAMES


def run(flags: Namespace) -> int:
    """Prints where the page is; where nothing could be evaluated for it, why not on stderr, with exit code 1."""
    threads = use_threads(flags.threads)
    keep_freed_memory()
    report = write_report(flags.run, flags.out, flags.root, flags.device, flags.download, flags.corruptions)
    analysis = report.analysis
    if analysis is None:
        say(f"nothing evaluated: {report.missing}", sys.stderr)
    else:
        for line in [*report.lines, *all_lines(analysis.data)]:
            say(line, sys.stderr)
        scores = analysis.confusion.result()
        right = f"{scores['overall_accuracy']:.2%} of {scores['count']:,} {SPLIT_NAMES[report.split]} shapes right"
        say(f"{right}, {scores['mean_class_accuracy']:.2%} mean over classes; {threads}")
    say(f"wrote {report.page}")
    return 0 if analysis else 1
