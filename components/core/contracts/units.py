"""Numbers with units, as people write them in a job file: ``20 ms``, ``16 MiB``, ``2x``, ``5 min``."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

_NUMBER_WITH_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ/%]*)\s*")

MILLISECONDS: Mapping[str, float] = {"ms": 1.0, "us": 1e-3, "µs": 1e-3, "s": 1e3}
SECONDS: Mapping[str, float] = {"s": 1.0, "min": 60.0, "h": 3600.0}
BYTES: Mapping[str, float] = {
    "B": 1,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
TIMES: Mapping[str, float] = {"x": 1.0, "": 1.0}
PER_SECOND: Mapping[str, float] = {"/s": 1.0, "": 1.0}


def parse_quantity(value: object, units: Mapping[str, float], example: str) -> float:
    """Converts ``"20 ms"`` to 20.0; the unit's factor comes from ``units``.

    Raises:
        ValueError: the text is no number, has no unit where one is needed, or has a unit of another kind.
    """
    accepted = ", ".join(unit or "no unit" for unit in units)
    match = _NUMBER_WITH_UNIT.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"{value!r} is no quantity; write a number and a unit ({accepted}), for instance {example!r}")
    number, unit = match.groups()
    if unit not in units:
        given = f"the unit {unit!r}" if unit else "no unit"
        raise ValueError(f"{value!r} has {given}; accepted: {accepted}, for instance {example!r}")
    return float(number) * units[unit]


def format_quantity(value: float, unit: str) -> str:
    """Writes what `parse_quantity` reads back to the same number: ``20 ms``, ``2x``, ``30/s``; no exponent."""
    number = f"{Decimal(repr(float(value))):f}"
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number} {unit}" if unit.isalpha() and unit != "x" else f"{number}{unit}"


def _quantity(units: Mapping[str, float], example: str) -> Any:
    return BeforeValidator(lambda value: parse_quantity(value, units, example), json_schema_input_type=str | float)


def _written_in(unit: str) -> Any:
    """JSON carries the unit, so that what one step writes is input that the next one accepts."""
    return PlainSerializer(lambda value: format_quantity(value, unit), return_type=str, when_used="json-unless-none")


Milliseconds = Annotated[float, _quantity(MILLISECONDS, "20 ms"), Field(gt=0), _written_in("ms")]
Seconds = Annotated[float, _quantity(SECONDS, "8 min"), Field(gt=0), _written_in("s")]
Bytes = Annotated[float, _quantity(BYTES, "16 MiB"), Field(gt=0), _written_in("B")]
Speedup = Annotated[float, _quantity(TIMES, "2x"), Field(gt=0), _written_in("x")]
PerSecond = Annotated[float, _quantity(PER_SECOND, "30/s"), Field(gt=0), _written_in("/s")]
