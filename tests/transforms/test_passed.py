"""A column that a step only passes on, or renames, keeps its origin; one that it makes has none."""

from __future__ import annotations

import polars as pl
import pytest

from headrace.pipeline import Step, python, sql
from headrace.transform import transform

COLUMNS = pl.Schema(
    {"id": pl.Int64, "n": pl.String, "day": pl.Date, "s": pl.Struct({"s": pl.String}), "literal": pl.String}
)
LOOK_UP = pl.Schema({"id": pl.Int64, "n": pl.String, "name": pl.String})
ORIGINS = {
    "source": {"id": "pg bigint", "n": "pg numeric", "day": "pg date", "literal": "pg xml", "s": "pg box"},
    "names": {"id": "pg bigint", "n": "pg text", "name": "pg varchar(9)"},
}
BIGINT, NUMERIC, DATE, XML, VARCHAR = "pg bigint", "pg numeric", "pg date", "pg xml", "pg varchar(9)"
ALL = ORIGINS["source"]
col = pl.col


def origins(*steps: Step, new: bool = False) -> dict[str, str]:
    frames = {"source": pl.LazyFrame(schema=COLUMNS), "names": pl.LazyFrame(schema=LOOK_UP)}
    increments = frozenset({"source"} if new else ())
    done = transform(steps, frames, previous="source", params={}, increments=increments, origins=ORIGINS)
    return {c: o.name for c, o in done.relation.origins.items()}


SQL = {
    "SELECT * FROM source WHERE id > 1 ORDER BY n LIMIT 3": ALL,
    "SELECT ID, source.n AS amount, day + 1 AS day, upper(n) AS u FROM source": {"id": BIGINT, "amount": NUMERIC},
    "SELECT * EXCLUDE (n, s) REPLACE (literal || '!' AS literal) RENAME (id AS key) FROM source": {
        "key": BIGINT,
        "day": DATE,
    },
    "SELECT coalesce(n, '') AS n, max(day) OVER () AS day, CASE WHEN true THEN id END AS id FROM source": {},
    "SELECT n::VARCHAR AS n, n COLLATE NOCASE AS m, (n) AS o FROM source": {"o": NUMERIC},
    "SELECT s.s, s.s AS n, s AS t FROM source": {"t": "pg box"},
    "SELECT n AS m, m AS o, m || '' AS p FROM source": {"m": NUMERIC, "o": NUMERIC},
    "WITH a(x, y) AS (SELECT id, n FROM source) SELECT b.x, y AS z FROM a b": {"x": BIGINT, "z": NUMERIC},
    "SELECT t.a FROM (SELECT id, n FROM source) t(a)": {"a": BIGINT},
    "SELECT n, count(*) AS id, any_value(day) AS day FROM source GROUP BY ALL": {"n": NUMERIC},
    "SELECT source.n, name FROM source LEFT JOIN names USING (id)": {"n": NUMERIC, "name": VARCHAR},
    "SELECT n, id FROM source RIGHT JOIN names USING (n, id)": {"id": BIGINT},
    "SELECT x.n FROM source JOIN names x USING (n)": {"n": "pg text"},
    "SELECT id, n FROM source UNION ALL SELECT id, n FROM names": {"id": BIGINT},
    "SELECT id FROM source UNION ALL SELECT 1": {},
    "SELECT n, id FROM source EXCEPT SELECT n, id FROM source": {"n": NUMERIC, "id": BIGINT},
    "SELECT id FROM source UNION ALL SELECT id::UTINYINT FROM source": {},
    "SELECT unnest([n]) AS n, COLUMNS('id') FROM source": {},
    "WITH RECURSIVE t AS (SELECT id FROM source UNION ALL SELECT id + 1 FROM t WHERE id < 5) SELECT * FROM t": {},
    "SELECT (SELECT n FROM source LIMIT 1) AS n FROM names": {},
}


@pytest.mark.parametrize(("text", "kept"), SQL.items())
def test_what_sql_passes_on_is_known(text, kept):
    assert origins(sql(text)) == kept


PYTHON = {
    "filter": (lambda source: source.filter(col("id") > 1).sort("n").unique("id").drop_nulls("n").head(3), ALL),
    "select": (lambda source: source.select("id", col("n").alias("amount")), {"id": BIGINT, "amount": NUMERIC}),
    "drop": (lambda source: source.drop("n", "s"), {k: v for k, v in ALL.items() if k not in ("n", "s")}),
    "with_columns": (
        lambda source: source.with_columns(col("n").str.to_uppercase(), x=col("id"), y=col("id") + 1),
        {k: v for k, v in ALL.items() if k != "n"} | {"x": BIGINT},
    ),
    "a literal's own name": (
        lambda source: source.with_columns(pl.lit("x")),
        {k: v for k, v in ALL.items() if k != "literal"},
    ),
    "a series' own name": (
        lambda source: source.with_columns(pl.Series("n", ["1"])),
        {k: v for k, v in ALL.items() if k != "n"},
    ),
    "a column over itself": (lambda source: source.with_columns(n=col("literal")), {**ALL, "n": XML}),
    "two names that change places": (
        lambda source: source.rename({"n": "literal", "literal": "n"}),
        {**ALL, "n": XML, "literal": NUMERIC},
    ),
    "cast": (lambda source: source.cast({"id": pl.Int32}), {k: v for k, v in ALL.items() if k != "id"}),
    "of no certain name": (lambda source: source.with_columns(pl.col(pl.String).str.to_uppercase()), {}),
    "of its first name": (
        lambda source: source.with_columns(col("literal").alias("z").name.keep()),
        {},
    ),
    "group by": (
        lambda source: source.group_by("n").agg(col("day").max(), col("id")),
        {"n": NUMERIC},
    ),
    "left join": (
        lambda source, names: source.join(names, on="id", how="left"),
        {**ALL, "name": VARCHAR},
    ),
    "a join that may merge": (
        lambda source, names: source.join(names, on=["id", "n"], how="full", coalesce=True),
        {**{k: v for k, v in ALL.items() if k != "n"}, "name": VARCHAR},
    ),
    "what was dropped stands again on the other side": (
        lambda source, names: source.select(pl.selectors.integer()).join(names, on="id"),
        {"id": BIGINT, "n": "pg text", "name": VARCHAR},
    ),
    "concat": (
        lambda source, names: pl.concat([source.select("id", "n"), names.select("id", "n")]),
        {"id": BIGINT},
    ),
    "a frame of its own": (
        lambda source: source.select("id").join(pl.LazyFrame({"id": [1], "day": ["x"]}), on="id"),
        {"id": BIGINT},
    ),
    "explode": (lambda source: source.select("id", col("n").str.split(",")).explode("n"), {}),
    "a function of rows": (lambda source: source.map_batches(lambda df: df.with_columns(n=pl.lit("x"))), {}),
    "collected": (lambda source: source.collect().lazy(), {}),
}


@pytest.mark.parametrize("what", PYTHON)
def test_what_python_passes_on_is_known(what):
    function, kept = PYTHON[what]
    assert origins(python(function)) == kept


def test_a_type_that_an_engine_does_not_have_takes_the_origin_with_it():
    frames = {"source": pl.LazyFrame(schema={"mood": pl.Categorical})}
    for step, kept in (sql("SELECT mood FROM source"), False), (python(lambda source: source.select("mood")), True):
        done = transform([step], frames, previous="source", params={}, origins={"source": {"mood": "pg mood"}})
        assert ("mood" in done.relation.origins) == kept


def test_origins_go_through_several_steps_whether_rows_are_new_or_not():
    steps = [sql("SELECT id AS key, n, day FROM source"), python(lambda previous: previous.filter(col("n") != ""))]
    for new in (False, True):
        assert origins(*steps, new=new) == {"key": BIGINT, "n": NUMERIC, "day": DATE}
