"""Base64url and JSON with one spelling and one reading for each value."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

# How many objects and arrays of a token or a key may be in one another, as in Go's verify.
_MAX_NESTED = 17


class NotCanonical(ValueError):
    """Base64url whose last character has bits that belong to nothing."""


def decode_base64(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515 §2), with unused bits zero.

    Raises ValueError. The standard library passes over characters that do not belong to
    base64; only a text that encodes the result again is the one spelling of it.
    """
    if not text.isascii():
        raise ValueError("not base64url without padding")
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))  # binascii.Error is a ValueError
    again = urlsafe_b64encode(data).rstrip(b"=").decode()
    if again != text:
        if again[:-1] == text[:-1]:
            raise NotCanonical("not canonical base64url")
        raise ValueError("not base64url without padding")
    return data


def encode_base64(data: bytes) -> str:
    """Encode as base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_object(data: bytes) -> dict[str, Any]:
    """Read exactly one JSON object: valid UTF-8, and no member twice at any depth.

    Equal members, of which parsers take the first or the last, would let what was signed be
    read in two ways (RFC 7515 §4, RFC 7519 §4). Raises ValueError.
    """
    text = data.decode()  # UnicodeDecodeError is a ValueError
    unique = _unique_text if "\\u" in text else _unique
    try:
        try:
            value = _DECODERS[unique].decode(text)
        except (json.JSONDecodeError, _Refused):
            raise
        except ValueError:
            # A number of thousands of digits, which is legal where nobody asks for its value.
            value = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse, parse_int=float).decode(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None
    if type(value) is not dict:
        raise ValueError("not a JSON object")
    if text.count("{") + text.count("[") > _MAX_NESTED and _nested(value) > _MAX_NESTED:
        raise ValueError("the JSON is nested too deep")
    return value


class _Refused(ValueError):
    pass


def _refuse(constant: str) -> None:
    raise _Refused(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Refused("a JSON object has the same member twice")
    return members


def _unique_text(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return _unique([(_text(name), _texts(value)) for name, value in pairs])


def _texts(value: Any) -> Any:
    if type(value) is str:
        return _text(value)
    if type(value) is list:
        return [_texts(item) for item in value]
    return value


def _text(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can escape and UTF-8 cannot hold."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _nested(value: Any) -> int:
    deepest, level = 0, [value]
    while level := [v for v in level if type(v) is dict or type(v) is list]:
        deepest += 1
        level = [inner for v in level for inner in (v.values() if type(v) is dict else v)]
    return deepest


_DECODERS = {
    unique: json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse) for unique in (_unique, _unique_text)
}
