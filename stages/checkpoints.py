"""List the trainings in the store of checkpoints, or delete those of other parameters, data or code than the present.

The present ones are those of params.yaml, with the recipe that it names. Finished trainings are listed too: a stage
takes their result if it runs again with the same parameters.
"""

import argparse

from pipelines.driver.cleaning import clean_trainings, list_trainings
from pipelines.layout import PARAMS
from pipelines.params import load_params
from pipelines.running.process import stage_main


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("list", "clean"))
    command = parser.parse_args().command
    params = load_params(PARAMS)
    if command == "list":
        list_trainings(params)
    else:
        clean_trainings(params)


if __name__ == "__main__":
    stage_main(main)
