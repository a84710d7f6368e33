"""A fleet as one pipeline parameter: 200 jobs in a few kilobytes, since most of their text is the same."""

import base64
import binascii
import json
import zlib

from pydantic import ValidationError

from components.core.errors import UserError
from pipelines.fleet.contract import Fleet

PREFIX = "zlib:"
MAX_BYTES = 4 << 20
"""Of an unpacked fleet; a parameter that unpacks to more is no fleet."""
MAX_PACKED = 24 << 10
"""Of a packed fleet, which has to fit into a command line (128 KiB) together with the rows of all its models."""


def pack(fleet: Fleet) -> str:
    """The fleet as a pipeline parameter.

    Raises:
        UserError: it is too large for one.
    """
    jobs = [job.model_dump(mode="json", exclude_defaults=True) for job in fleet.jobs]
    text = json.dumps({"name": fleet.name, "parallelism": fleet.parallelism, "jobs": jobs}, separators=(",", ":"))
    packed = PREFIX + base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(packed) > MAX_PACKED:
        raise UserError(f"{fleet.name}: {len(fleet.jobs)} jobs are too large for one run; split the fleet")
    return packed


def unpack(text: str) -> Fleet:
    """The fleet of a pipeline parameter: what `pack` made, or plain JSON with `name`, `parallelism` and `jobs`.

    Raises:
        UserError: it is neither.
    """
    try:
        plain = _inflated(text[len(PREFIX) :]) if text.startswith(PREFIX) else text
        return Fleet.model_validate_json(plain)
    except (binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"fleet: a damaged parameter ({error}); submit it again with hasten submit") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the fleet"
        raise UserError(f"fleet: {where}: {first['msg']}; submit it with hasten submit FLEET.yaml") from error


def _inflated(text: str) -> str:
    stream = zlib.decompressobj()
    content = stream.decompress(base64.b64decode(text, validate=True), MAX_BYTES)
    if stream.unconsumed_tail:
        raise UserError(f"fleet: it unpacks to more than {MAX_BYTES} bytes, which is no fleet")
    return content.decode()
