"""A study of fine-tuning strategies, data regimes and seeds in one command."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfreeze.study.api import Results, Study


__all__ = ["Results", "Study"]


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is asked for: the command line answers --help without torch."""
    if name in __all__:
        from unfreeze.study import api

        return getattr(api, name)
    raise AttributeError(f"module 'unfreeze' has no attribute {name!r}")
