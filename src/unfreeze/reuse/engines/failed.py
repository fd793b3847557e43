"""What an engine raises when it cannot run a network."""


class EngineFailed(Exception):
    """The engine cannot convert or run these stages; another one can."""


def gist(error: Exception) -> str:
    """Return the last line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
