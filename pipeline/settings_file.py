"""The settings tree as commented TOML: config/default.toml is this text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core.settings import Settings

HEADER = """\
# All settings of Conch with their defaults. Written from the code by `conch settings --write-default`.
# Change one for a run with --set section.key=value, or put your own file over this one with --config.
"""


def render(settings: Settings) -> str:
    """One section per table, each key under its meaning; keys without a value are shown commented out."""
    parts = [HEADER]
    for name in Settings.model_fields:
        section: BaseModel = getattr(settings, name)
        parts.append(f"\n[{name}]\n")
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            parts.extend(f"# {line}\n" for line in (field.description or "").splitlines())
            parts.append(f"# {key} =\n" if value is None else f"{key} = {toml_value(value)}\n")
    return "".join(parts)


def toml_value(value: Any) -> str:
    """A setting's value in TOML. Raises TypeError for what has no such form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)  # TOML's basic strings take JSON's escapes
    if isinstance(value, BaseModel):
        given = ((name, getattr(value, name)) for name in type(value).model_fields if name in value.model_fields_set)
        return f"{{{', '.join(f'{name} = {toml_value(entry)}' for name, entry in given)}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml_value(key)} = {toml_value(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(toml_value(entry) for entry in value)}]"
    raise TypeError(f"no TOML form for {type(value).__name__}")
