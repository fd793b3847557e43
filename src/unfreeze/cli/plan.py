"""stub"""


def plan() -> None:
    """Stub."""
