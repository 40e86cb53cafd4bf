"""Issue Thanx loyalty rewards in bulk from asyncio."""

from thanx_async._version import __version__

__all__ = ["__version__"]
