"""The command line; heavy imports happen inside commands."""

from unfreeze.cli.app import main

__all__ = ["main"]
