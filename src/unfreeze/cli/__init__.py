"""The command line: one module a command; heavy imports happen inside a command."""

from unfreeze.cli.app import main

__all__ = ["main"]
