"""The one exception for mistakes that a user can make and fix."""


class UserError(Exception):
    """The user's input is wrong: says what was given, what was expected and how to fix it.

    The command line prints it without a traceback and exits with 2.

    Args:
        given: what was received, naming the file, key or value.
        expected: what would have been right.
        fix: what to do about it.
    """

    def __init__(self, given: str, expected: str = "", fix: str = "") -> None:
        # From a worker process PyTorch builds the error anew from one text, which already says all three.
        self.given, self.expected, self.fix = given, expected, fix
        super().__init__(f"{given}\n  expected: {expected}\n  fix:      {fix}" if expected else given)
