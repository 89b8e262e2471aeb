"""Compare what the recipe has made on this machine with the committed run: data, weights and figures.

Nothing is run. The exit status is 1 if data differ or a figure is outside the spread over seeds; weights may differ.
"""

import argparse

from pipelines.layout import PARAMS, ROOT
from pipelines.params import load_params
from pipelines.reproduction.record import read_record
from pipelines.reproduction.verify import explanation, verify
from pipelines.running.process import stage_main


def main() -> int:
    """Run the command."""
    argparse.ArgumentParser(prog="python -m stages.verify", description=__doc__).parse_args()
    lines = verify(load_params(PARAMS), read_record(), ROOT)
    widths = [max(len(text) for text in column) for column in zip(*((line.kind, line.name) for line in lines))]
    for line in lines:
        print(f"{line.kind:<{widths[0]}}  {line.name:<{widths[1]}}  {line.result}")
    print(explanation(lines))
    return int(any(line.failed for line in lines))


if __name__ == "__main__":
    stage_main(main)
