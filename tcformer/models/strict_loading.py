"""Load weights into a module, either all of them or none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tcformer.errors import UserError, listed


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into `module`.

    Args:
        module: its state is replaced, or stays unchanged if the tensors do not fit.
        tensors: by name, of any floating dtype. They are converted to the dtypes of the module.
        source: where the tensors come from, for the message.

    Raises:
        UserError: tensors are missing, unknown or of another shape. The message lists them.
    """
    expected = module.state_dict()
    other_shape = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {problem}: {listed(names)}"
        for problem, names in (
            ("missing", sorted(expected.keys() - tensors.keys())),
            ("unknown", sorted(tensors.keys() - expected.keys())),
            ("of another shape", other_shape),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{source}: does not fit the model, tensors {'; '.join(problems)}; use weights of the same variant, task "
            "and options"
        )
    module.load_state_dict(tensors)
