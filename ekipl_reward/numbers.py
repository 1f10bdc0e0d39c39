"""Plain numbers in text, without surprises: no eval, no huge exponents, no NaN, ASCII digits only."""

import re
from fractions import Fraction
from functools import lru_cache

MAX_CHARS = 64  # longer than any honest number; keeps parsing constant in time

_NUMBER = re.compile(
    r"([+-]?)\s?(?:"
    r"((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e([+-]?\d{1,2}))?"  # 1,200.5  .5  1e3
    r"|(\d+)\s?/\s?(\d+)"  # 3/4
    r"|\\[dt]?frac\{(\d+)\}\{(\d+)\}"  # \frac{3}{4}
    r")",
    re.ASCII | re.IGNORECASE,
)


def parse_number(text: str) -> Fraction | None:
    """Exact value of a decimal number or of a fraction of two whole numbers; None for anything else.

    Takes a sign (also the typographic minus), well-formed thousands separators and two exponent digits. Words, units,
    "nan", "inf", "1_000", full-width digits and a decimal comma are no numbers.

    Example:
        "1,200.50" -> 2401/2    "-3/4" -> -3/4    "\\frac{3}{4}" -> 3/4    "3 objects" -> None    "1,5" -> None
    """
    return None if len(text) > MAX_CHARS else _parse(text)


@lru_cache(maxsize=8192)
def _parse(text: str) -> Fraction | None:
    match = _NUMBER.fullmatch(text.strip().replace("\u2212", "-"))
    if match is None:
        return None
    sign, decimal, exponent, *parts = match.groups()
    if decimal:
        value = Fraction(decimal.replace(",", "").rstrip(".")) * Fraction(10) ** int(exponent or 0)
    else:
        above, below = (int(part) for part in parts if part)
        if below == 0:
            return None
        value = Fraction(above, below)
    return -value if sign == "-" else value


def show(value: Fraction) -> str:
    """Short text of an exact value. Example: Fraction(2401, 2) -> "1200.5", Fraction(1, 3) -> "1/3"."""
    return f"{float(value):g}" if value == Fraction(f"{float(value):g}") else str(value)
