"""The exception for mistakes in a user's input."""


class UserError(Exception):
    """The user's input is invalid; says what was given, what was expected and how to fix it.

    The command line prints it without a traceback and exits with code 2.

    Args:
        given: what was received, naming the file, key or value.
        expected: what would be valid.
        fix: how to fix it.
    """

    def __init__(self, given: str, expected: str = "", fix: str = "") -> None:
        # PyTorch rebuilds an error of a loader process from its text alone, which contains all three parts.
        self.given, self.expected, self.fix = given, expected, fix
        super().__init__(f"{given}\n  expected: {expected}\n  fix:      {fix}" if expected else given)
