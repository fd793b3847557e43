"""stub"""


def describe() -> None:
    """Stub."""
