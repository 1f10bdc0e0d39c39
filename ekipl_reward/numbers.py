"""Plain numbers in text, without surprises: no eval, no huge exponents, no NaN."""

from fractions import Fraction

MAX_CHARS = 64  # longer than any honest number; keeps parsing constant in time
MAX_EXPONENT = 100


def parse_number(text: str) -> Fraction | None:
    """Exact value of a decimal number or a fraction of two integers; None for anything else.

    Accepts a sign, thousands separators, a trailing full stop and `$...$`. Refuses words, units, "nan", "inf".

    Example:
        "1,200." -> 1200    "-3/4" -> -3/4    "3 objects" -> None
    """
    text = text.strip()
    if len(text) > MAX_CHARS or not text.isascii():
        return None
    text = text.strip("$ ").rstrip(".").replace(",", "").replace("_", "x")
    exponent = text.lower().partition("e")[2]
    if exponent and (not exponent.lstrip("+-").isdigit() or abs(int(exponent)) > MAX_EXPONENT):
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
