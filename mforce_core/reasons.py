"""What went wrong, as the part of a sentence."""


def reason_of(error: BaseException) -> str:
    """The first line of an error's message without its full stop, for parentheses; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
