"""PostgreSQL's types: which logical type holds one's values, and which of them it cannot hold.

What has no exact logical type is read as the text that the type's own output function writes: that is exact for every
type there is, those of extensions too. Domains are read as what they are over. NaN in a numeric, infinity, years before
1 and after 9999, 24:00 and arrays that are no plain lists are values that a natural type lacks: such columns are
`partial`, and are read as text once such a value has been met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.frozen import frozen
from headrace.logical import Type

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["TEXT", "PgType", "described"]

TEXT = Type("string")
_TOTAL = {
    "bool": Type("bool"),
    "int2": Type("int16"),
    "int4": Type("int32"),
    "int8": Type("int64"),
    "oid": Type("uint32"),
    "float4": Type("float32"),
    "float8": Type("float64"),
    "text": TEXT,
    "varchar": TEXT,
    "bpchar": TEXT,
    "name": TEXT,
    "char": TEXT,
    "uuid": TEXT,
    "bytea": Type("binary"),
    "json": Type("json"),
    "jsonb": Type("json"),
}
_PARTIAL = {
    "date": Type("date"),
    "time": Type("time"),
    "timestamp": Type("datetime", ("us", None)),
    "timestamptz": Type("datetime", ("us", "UTC")),
}
_DIGITS_MAX = 38
_HEADER = 4  # numeric's modifier is ((precision << 16) | scale) + 4, the scale a signed number of 11 bits
_SCALE_BITS = 0x7FF
_SCALE_SIGN = 0x400

_DESCRIBE = """
WITH RECURSIVE given AS (
  SELECT * FROM ROWS FROM (pg_catalog.unnest(%s::oid[]), pg_catalog.unnest(%s::int4[]))
    WITH ORDINALITY AS g (oid, mod, at)
), based AS (
  SELECT g.at, g.oid, g.mod FROM given AS g
  UNION ALL
  SELECT b.at, t.typbasetype, t.typtypmod FROM based AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.oid
  WHERE t.typtype = 'd'
)
SELECT pg_catalog.format_type(g.oid, g.mod), tn.nspname, t.typname, t.typtype, b.mod,
  en.nspname, e.typname, e.typtype,
  (SELECT n.nspname FROM pg_catalog.pg_opclass AS c
    JOIN pg_catalog.pg_amop AS p ON p.amopfamily = c.opcfamily AND p.amoplefttype = t.oid AND p.amoprighttype = t.oid
    JOIN pg_catalog.pg_operator AS o ON o.oid = p.amopopr JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
    WHERE c.opcintype = t.oid AND c.opcdefault AND p.amopstrategy = 3 AND p.amopmethod = c.opcmethod
      AND c.opcmethod = (SELECT m.oid FROM pg_catalog.pg_am AS m WHERE m.amname = 'btree'))
FROM given AS g JOIN based AS b USING (at)
JOIN pg_catalog.pg_type AS t ON t.oid = b.oid AND t.typtype <> 'd'
JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_catalog.pg_namespace AS en ON en.oid = e.typnamespace
ORDER BY g.at
"""


@frozen
class PgType:
    """A column's type on the server. `name` is what ``format_type`` prints with only pg_catalog in the search path;
    `base` is the plain type that it is over, ``int4``, or ``array`` (``other``: of no kind that is known here);
    `held` the logical type that its values have here; `partial`: not all of them. `operators` is the schema of those
    that compare it in the order by which it is sorted: an extension's are not found without it.
    """

    name: str
    base: str
    held: Type
    partial: bool
    operators: str = "pg_catalog"

    @property
    def origin(self) -> str:
        """As `Frame.origins` tells it."""
        return f"postgres {self.name}"

    def as_text(self) -> PgType:
        """The same, read as text."""
        return replace(self, held=TEXT, partial=False)


def described(connection: Connection, types: Sequence[tuple[int, int]]) -> list[PgType]:
    """The types of these OIDs and modifiers, as the catalog says. The search path is pg_catalog's alone."""
    oids, mods = [oid for oid, _ in types], [mod for _, mod in types]
    return [_typed(*row) for row in connection.execute(_DESCRIBE, [oids, mods]).fetchall()]


def _typed(
    name: str,
    space: str,
    base: str,
    kind: str,
    mod: int,
    item_space: str | None,
    item: str | None,
    item_kind: str | None,
    operators: str | None,
) -> PgType:
    if item is not None:
        found = _plain(item_space or "", item, item_kind or "", mod)
        return (
            PgType(name, "other", TEXT, partial=False)
            if found is None
            else PgType(name, "array", Type("list", (found[0],)), partial=True)
        )
    found = _plain(space, base, kind, mod)
    if found is None:
        base = base if space == "pg_catalog" else "other"
        return PgType(name, base, TEXT, partial=False, operators=operators or "pg_catalog")
    return PgType(name, "enum" if kind == "e" else base, found[0], found[1])


def _plain(space: str, base: str, kind: str, mod: int) -> tuple[Type, bool] | None:
    """The logical type, and whether there are values that it cannot hold; None where text is all that is exact."""
    if kind == "e":
        return TEXT, False
    if space != "pg_catalog" or kind != "b":
        return None
    if base in _TOTAL:
        return _TOTAL[base], False
    if base in _PARTIAL:
        return _PARTIAL[base], True
    return _numeric(mod) if base == "numeric" else None


def _numeric(mod: int) -> tuple[Type, bool] | None:
    if mod < _HEADER:
        return None  # of any size
    precision, scale = (mod - _HEADER) >> 16, (mod - _HEADER) & _SCALE_BITS
    scale -= (scale & _SCALE_SIGN) << 1
    fits = precision <= _DIGITS_MAX and 0 <= scale <= precision
    return (Type("decimal", (precision, scale)), True) if fits else None
