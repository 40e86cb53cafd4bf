"""`MissingExtraError`, for packages that an extra of this library installs."""

from __future__ import annotations

from thanx_async._core.errors import ConfigurationError


class MissingExtraError(ConfigurationError, ImportError):
    """A package is not installed. The message names the extra that installs it."""


def missing(error: ImportError, extra: str) -> MissingExtraError:
    """The error for a failed import of a package that ``extra`` installs."""
    package = (error.name or extra).partition(".")[0]
    return MissingExtraError(
        f"the package {package} is not installed: run pip install 'thanx_async[{extra}]'"
    )
