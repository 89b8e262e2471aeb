"""Make the paper's figures: find the trained networks, draw, write runs/<recipe>/figures/."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.layout import Layout
from pipelines.paper.drawing import Trained, draw_figure
from pipelines.paper.dvc_experiments import as_typed, queue_command
from pipelines.paper.experiments import Experiment, load_experiments
from pipelines.paper.figures import FIGURES
from pipelines.paper.trained_networks import TrainedNetwork, check_given, find_networks, of_recipe
from pipelines.params import Params
from tcformer.draw import write_png
from tcformer.errors import UserError


def make_figures(
    names: Iterable[str], params: Params, given: Mapping[str, Path], chosen: Sequence[int], repository: Path
) -> Iterator[Path]:
    """Make figures, one for each step of the iteration.

    Args:
        names: of figures.
        params: its recipe is the one whose networks and data are drawn.
        given: experiment -> weights that are drawn instead of those that the experiment has left.
        chosen: indices of the samples or pictures that are drawn; (): evenly spread ones.
        repository: its folder.

    Yields:
        The file of each figure.

    Raises:
        UserError: a network is not trained, a given file is wrong, or a dataset is missing.
    """
    names, every = list(dict.fromkeys(names)), load_experiments()
    wanted = dict.fromkeys(experiment for name in names for experiment in FIGURES[name].experiments)
    if unknown := sorted(given.keys() - wanted):
        raise UserError(
            f"--weights {unknown[0]}=...: {', '.join(names)} shows no such experiment; expected {', '.join(wanted)}"
        )
    experiments = {name: of_recipe(every[name], params.recipe) for name in wanted}
    for name, weights in given.items():
        check_given(weights, experiments[name])
    found = _found([name for name in wanted if name not in given], experiments, repository)
    layout = Layout(params.recipe, repository)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in names:
            figure, path = FIGURES[name], layout.run("figures", f"{name}.png")
            if figure.kind == "stage" and (network := found.get(figure.experiments[0])):
                _copy_drawn_tokens(name, network, repository, folder, path)
            else:
                drawn = {n: given.get(n) or found[n].weights(repository, folder) for n in figure.experiments}
                write_png(path, draw_figure(figure, Trained(experiments, drawn, params, layout, chosen)))
            yield path


def _found(names: Sequence[str], experiments: Mapping[str, Experiment], repository: Path) -> dict[str, TrainedNetwork]:
    """The networks of the named experiments.

    Raises:
        UserError: some are not trained; the message gives the commands that train them.
    """
    networks = find_networks([experiments[name] for name in names], repository)
    found = {name: networks[experiments[name].name] for name in names if experiments[name].name in networks}
    if missing := [name for name in names if name not in found]:
        commands = [f"  {as_typed(queue_command(experiments[name]))}" for name in missing]
        if all(experiments[name].recipe == "paper" for name in missing):
            commands = [f"  python -m stages.experiments queue {' '.join(missing)} --start"]
        else:
            commands.append("  dvc queue start")
        raise UserError(
            f"{len(missing)} networks are not trained: {', '.join(missing)} (recipe {experiments[missing[0]].recipe}); "
            "train them:\n" + "\n".join(commands) + f"\nor give their weights: --weights {missing[0]}=FILE ..."
        )
    for name, network in found.items():
        print(f"{name}: from {network.found_in}")
    return found


def _copy_drawn_tokens(name: str, network: TrainedNetwork, repository: Path, folder: Path, path: Path) -> None:
    """Copy what the stage `visualize` drew of a network.

    Raises:
        UserError: the stage has not run.
    """
    experiment = network.experiment
    drawn = network.drawn_tokens(repository, folder)
    if drawn is None:
        raise UserError(
            f"{name} is the picture of the stage visualize@{experiment.task}, which has not run with the network of "
            f"{network.found_in}; run `dvc repro visualize@{experiment.task}`"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(drawn, path)
