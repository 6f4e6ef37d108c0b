"""Configurations as plain values, for records and for the keys that name runs."""

import dataclasses
from typing import Any

from tlresearch import own


def plain_config(value: Any, defaults: bool = True) -> Any:
    """A configuration as JSON values; without `defaults`, fields at theirs are left out."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return list(value) if isinstance(value, tuple) else value
    plain: dict[str, Any] = {"kind": own.kind_name(type(value))}
    for f in dataclasses.fields(value):
        current = getattr(value, f.name)
        if defaults or current != _default(f):
            plain[f.name] = plain_config(current, defaults)
    return plain


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default
