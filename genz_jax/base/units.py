"""Units: text such as "3.35 TB/s" in, base units inside, readable text out.

Inside the engine every number is in base units (byte, flop, s, W, J, token). Prefixes are decimal (GB = 1e9 B);
binary ones are spelt out (GiB = 2^30 B).
"""

import math
import re

BYTE, BYTE_RATE = "byte", "byte s-1"
FLOP, FLOP_RATE = "flop", "flop s-1"
SECOND, WATT, JOULE = "s", "W", "J"
TOKEN, TOKEN_RATE = "token", "token s-1"
REQUEST_RATE = "request s-1"
JOULE_PER_TOKEN = "J token-1"
AREA, MONEY = "m2", "USD"
MONEY_PER_HOUR, MONEY_PER_MEGATOKEN = "USD h-1", "USD Mtoken-1"
ONE = "1"

_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "m": 1e-3, "u": 1e-6, "µ": 1e-6}
_PREFIXES |= {"μ": 1e-6, "n": 1e-9, "p": 1e-12, "K": 1e3}
_PREFIXES |= {prefix: 2.0 ** (10 * power) for power, prefix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), start=1)}
_SYMBOLS = {  # spelling: (base unit, factor)
    "B": (BYTE, 1.0),
    "byte": (BYTE, 1.0),
    "b": (BYTE, 0.125),
    "bit": (BYTE, 0.125),
    "FLOP": (FLOP, 1.0),
    "flop": (FLOP, 1.0),
    "OP": (FLOP, 1.0),
    "s": (SECOND, 1.0),
    "W": (WATT, 1.0),
    "J": (JOULE, 1.0),
    "token": (TOKEN, 1.0),
    "tokens": (TOKEN, 1.0),
    "tok": (TOKEN, 1.0),
    "USD": (MONEY, 1.0),
    "$": (MONEY, 1.0),
}
_AREAS = {"m": 1.0, "dm": 1e-2, "cm": 1e-4, "mm": 1e-6, "um": 1e-12, "µm": 1e-12, "μm": 1e-12, "nm": 1e-18}
_PER_SECOND = {"FLOPS": "FLOP", "FLOPs": "FLOP", "flops": "flop", "OPS": "OP", "Bps": "B", "bps": "b"}
_TEXT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf|nan)\s*([^\d\s/][^\s/]*)?\s*(/\s*s)?\s*")
_EXAMPLES = {
    BYTE: "80 GB",
    BYTE_RATE: "3.35 TB/s",
    FLOP_RATE: "989 TFLOP/s",
    FLOP: "2 TFLOP",
    SECOND: "1 us",
    WATT: "700 W",
    JOULE: "1 J",
    TOKEN: "2048",
    TOKEN_RATE: "50 token/s",
    AREA: "814 mm2",
    MONEY: "30000 USD",
    ONE: "0.8",
}


def brief(value: object) -> str:
    """A value for a message, cut where it is longer than a hundred letters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]}…{text[-1]}"


def _split(symbol: str) -> tuple[str, float] | None:
    """Base unit and factor of a unit symbol with its prefix ("TB" → byte, 1e12); None if there is no such unit."""
    if symbol[-1:] in ("2", "²") and symbol[:-1] in _AREAS:  # the prefix is squared too
        return AREA, _AREAS[symbol[:-1]]
    for prefix in sorted(_PREFIXES, key=len, reverse=True):
        base = symbol[len(prefix) :]
        if symbol.startswith(prefix) and base in _SYMBOLS:
            if base in ("b", "bit") and _PREFIXES[prefix] < 1:  # "mbps" is a slip for "Mbps"
                return None
            unit, factor = _SYMBOLS[base]
            return unit, factor * _PREFIXES[prefix]
    return None


def parse_any(text: str) -> tuple[float, str | None]:
    """Read a number with an optional unit.

    Args:
        text: for example `"3.35 TB/s"`, `"80GiB"`, `"400 Gb/s"`, `"989 TFLOPS"`, `"1e12"`.

    Returns:
        The value in base units, and the base unit; None for the unit of a bare number.

    Raises:
        ValueError: the text is not a number with a known unit.
    """
    match = _TEXT.fullmatch(text)
    if not match:
        raise ValueError(f"{brief(text)} is not a number with a unit; write it like '3.35 TB/s', '80 GB' or '1 us'")
    number, symbol, per_second = float(match[1]), match[2], match[3]
    if symbol is None and per_second is None:
        return number, None
    symbol = symbol or ""
    for spelling, base in _PER_SECOND.items():
        if symbol.endswith(spelling) and not per_second:
            symbol, per_second = symbol[: -len(spelling)] + base, "/s"
            break
    found = _split(symbol)
    if symbol in _PREFIXES and not per_second:  # "128k"
        number *= _PREFIXES[symbol]
        raise ValueError(f"{brief(text)} has the prefix {symbol!r} but no unit; add one, or write {number:.15g}")
    if found is None:
        if re.fullmatch(r"(,\d{3})+", symbol):
            raise ValueError(f"{brief(text)} has commas; write {text.replace(',', '')}")
        raise ValueError(
            f"{brief(text)} has the unknown unit {brief(match[2])}; known are B, b, FLOP, s, W, J, token, mm2 with the "
            "prefixes n u m k M G T P or Ki Mi Gi Ti, and '/s' for a rate"
        )
    unit, factor = found
    return number * factor, f"{unit} s-1" if per_second else unit


def parse(text: str, unit: str) -> float:
    """Read text as a value of the given base unit.

    Args:
        text: a number with a unit, or a bare number, which is taken to be in base units.
        unit: the base unit that is wanted, one of the constants of this module.

    Returns:
        The value in base units.

    Raises:
        ValueError: no number, an unknown unit, or a unit of another dimension.
    """
    value, found = parse_any(text)
    check_unit(repr(text), found, unit)
    return value


def check_unit(what: str, found: str | None, wanted: str) -> None:
    """Raise ValueError if a value with base unit `found` cannot stand where `wanted` is needed."""
    if found is not None and found != wanted:
        raise ValueError(f"{what} is in {found!r}, but {wanted!r} is needed, e.g. {_EXAMPLES.get(wanted, '1')!r}")


_SHOWN = {BYTE: "B", BYTE_RATE: "B/s", FLOP: "FLOP", FLOP_RATE: "FLOP/s", SECOND: "s", WATT: "W", JOULE: "J"}
_SHOWN |= {TOKEN: "tokens", TOKEN_RATE: "tokens/s", REQUEST_RATE: "requests/s", ONE: "", JOULE_PER_TOKEN: "J/token"}
_SHOWN |= {AREA: "mm²", MONEY: "USD", MONEY_PER_HOUR: "USD/h", MONEY_PER_MEGATOKEN: "USD/Mtoken"}
_SCALED = {BYTE, BYTE_RATE, FLOP, FLOP_RATE, SECOND, WATT, JOULE, JOULE_PER_TOKEN}


def show(value: float, unit: str, digits: int = 4) -> str:
    """Write a value in base units as short text, e.g. `show(3.35e12, "byte s-1")` is "3.35 TB/s"."""
    symbol = _SHOWN.get(unit, unit)
    if unit == AREA:
        value *= 1e6
    if not math.isfinite(value) or value == 0 or unit not in _SCALED:
        number = f"{value:,.{digits}g}" if abs(value) < 1e4 or not math.isfinite(value) else f"{value:,.0f}"
        return f"{number} {symbol}".strip()
    steps = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
    power = min(max(3 * math.floor(math.log10(abs(value)) / 3 + 1e-9), -9), 18)
    if unit == SECOND:
        power = min(power, 0)
    return f"{value / 10.0**power:.{digits}g} {steps[power]}{symbol}"
