"""JSON to pipelines and back, in one vocabulary with Python: a JSON key IS a constructor's keyword.

`load` reads a file; `encode` writes a pipeline as canonical JSON; `json_schema` describes the language to an
editor. A mistake in a config costs no heavy import: only what the config names is imported, and of that only
the dataclasses.
"""

from __future__ import annotations

from typing import Any

from headrace.config.encode import encode
from headrace.config.loading import PROFILE, decode, load, load_all
from headrace.secret import Secret

__all__ = ["PROFILE", "Secret", "decode", "encode", "json_schema", "load", "load_all"]


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of pipelines and of headrace.json."""
    from headrace.config.jsonschema import schema

    return schema()
