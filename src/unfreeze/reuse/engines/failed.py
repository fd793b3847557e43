"""What an engine raises when it cannot run a network."""


class EngineFailed(Exception):
    """The engine cannot convert or run these stages; another one can."""
