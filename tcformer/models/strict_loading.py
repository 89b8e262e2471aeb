"""Load weights into a module, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tcformer.errors import UserError, listed


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into `module`.

    Args:
        module: whose state is replaced; unchanged if the tensors do not fit.
        tensors: name -> tensor; of any floating dtype, converted to the module's.
        source: what the tensors are, to begin a message with.

    Raises:
        UserError: tensors are missing, unknown or of another shape; the message lists them.
    """
    expected = module.state_dict()
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {kind}: {listed(names)}"
        for kind, names in (
            ("missing", sorted(expected.keys() - tensors.keys())),
            ("unknown", sorted(tensors.keys() - expected.keys())),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{source} does not fit the model, tensors {'; '.join(problems)}; use weights of the same variant, task "
            "and options."
        )
    module.load_state_dict(tensors)
