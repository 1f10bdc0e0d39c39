"""Text of others on a terminal and in a log: shown, never obeyed."""


def printable(text: str, keep: str = "\n") -> str:
    """Control characters, lone surrogates and the like as escapes, those in `keep` apart. With `keep=""` it is one line.

    Example: what would clear the screen comes out as "\\x1b[2J".
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)
