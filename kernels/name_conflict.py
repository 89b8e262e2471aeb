"""Another project on PyPI also has a package called `kernels`; the two cannot be installed together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def refuse_foreign_package() -> None:
    """Refuse the import if the other package is installed.

    Raises:
        ImportError: the distribution `kernels`, which this package would hide, is installed in this environment.
    """
    try:
        foreign = version("kernels")
    except PackageNotFoundError:
        return
    raise ImportError(
        f"TCFormer's package 'kernels' would hide another project's package of that name (version {foreign}), "
        "which is installed in this environment: run 'pip uninstall kernels', or use the .venv that TCFormer's "
        "Makefile makes."
    )
