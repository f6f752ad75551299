"""Rejects of a look-up are told anew by each run that reads it."""

from __future__ import annotations

import polars as pl
import pytest

import headrace as hr
from headrace.engine import quarantine


def test_a_mended_row_of_a_look_up_is_refused_and_one_left_as_it_was_is_passed_over(place):
    place.write("1.csv", "id,g,v\n1,a,1\n2,b,-2\n")
    (place.folder / "g.csv").write_text("g,n\na,1\nb,x\n")
    names = hr.FileSource(
        path="g.csv",
        base=place.folder,
        read="all",
        types={"n": "int64"},
        contract=hr.Contract(on_violation="quarantine"),
    )
    pipeline = place.pipeline(
        sources={"o": hr.FileSource(path="in/*.csv", base=place.folder), "g": names},
        transforms=(hr.sql("SELECT o.*, n FROM o LEFT JOIN g USING (g)"),),
        contract=hr.Contract(columns={"v": hr.Column(min=0)}, on_violation="quarantine"),
    )
    hr.run(pipeline)
    rows, fixed = quarantine.export(hr.rejects(pipeline)), place.folder / "fixed.csv"
    rows.with_columns(raw=pl.when(pl.col("source") == "g").then(pl.lit("b,2")).otherwise("raw")).write_csv(fixed)
    with pytest.raises(hr.DataError, match=r"\(g\.csv:3\) is one of the look-up 'g'") as refused:
        hr.replay(pipeline, fixed=fixed)
    assert "mend it where 'g' reads it" in refused.value.hint
    rows.with_columns(v=pl.when(pl.col("v") == "-2").then(pl.lit("2")).otherwise("v")).write_csv(fixed)
    assert hr.replay(pipeline, fixed=fixed).status == "loaded"
    assert place.rows(pipeline) == [(1, "a", 1, 1), (2, "b", 2, None)]
