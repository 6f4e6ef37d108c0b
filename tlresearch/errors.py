"""What is meant for the person at the keyboard: the one error, and notices."""

import sys


class UserError(Exception):
    """Something the user gave cannot be used.

    Its text is one sentence: what is wrong, where, what was expected and what to do.
    The command prints it without a traceback and exits with code 2.
    """


class AgreedError(UserError):
    """A `UserError` that all processes of a run raise together; one of them prints it."""


def notice(sentence: str) -> None:
    """Says on the error stream what a person should know of a command that goes on."""
    print(f"tlresearch: {sentence}", file=sys.stderr)
