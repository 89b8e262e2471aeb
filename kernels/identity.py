"""Another project on PyPI is called `kernels` as well; this package and that one exclude each other."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def refuse_foreign_package() -> None:
    """Stop the import where the other package is installed.

    Raises:
        ImportError: the distribution `kernels`, which this package would hide, is installed in this
            environment.
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
