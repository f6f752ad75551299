"""What must hold for any rows, however they come in."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headrace as hr

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.sampled_from("abc")),
    min_size=1,
    max_size=12,
    unique_by=lambda r: r[:2],
)
calm = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


def frame(rows):
    return pl.DataFrame(rows, schema={"id": pl.Int64, "moved": pl.Int64, "v": pl.String}, orient="row")


def loaded(folder: Path, parts, write, name="t", transforms=()):
    """The table after the parts came in, one run each."""
    frames = [frame([])]
    destination = hr.DuckDBDestination(path=str(folder / f"{name}.duckdb"), table=name)
    pipeline = hr.Pipeline(
        name=name, source=hr.MemorySource(frames=frames), destination=destination, write=write, transforms=transforms
    )
    for part in parts:
        frames.append(frame(part))
        hr.run(pipeline)
    return destination.inspect(name).scan().collect()


@calm
@given(rows=ROWS, cuts=st.lists(st.integers(0, 12), max_size=3), order=st.randoms(use_true_random=False))
def test_any_split_of_rows_into_increments_merges_to_the_table_of_one_load(rows, cuts, order):
    """Late and repeated keys included: `latest_by` is compared in the batch and in the target."""
    mixed = list(rows)
    order.shuffle(mixed)
    bounds = sorted({0, *(c for c in cuts if c < len(mixed)), len(mixed)})
    parts = [mixed[a:b] for a, b in pairwise(bounds)]
    write = hr.Merge(keys=("id",), latest_by=("moved",))
    with tempfile.TemporaryDirectory() as folder:
        once = loaded(Path(folder), [rows], write, "once")
        split = loaded(Path(folder), parts, write, "split")
    assert split.sort("id").equals(once.sort("id"))


@calm
@given(rows=ROWS, at=st.integers(1, 11))
def test_ties_in_order_merge_to_the_table_of_one_load(rows, at):
    """Of rows with equal keys and an equal `latest_by`, the last read stays."""
    tied = [(i, m // 3, v) for i, m, v in rows]
    write = hr.Merge(keys=("id",), latest_by=("moved",))
    with tempfile.TemporaryDirectory() as folder:
        once = loaded(Path(folder), [tied], write, "once")
        split = loaded(Path(folder), [p for p in (tied[:at], tied[at:]) if p], write, "split")
    assert split.sort("id").equals(once.sort("id"))


FILES = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("xyz"), st.integers(-2, 5)), max_size=5),
    min_size=1,
    max_size=4,
)


@calm
@given(files=FILES)
def test_recompute_gives_what_a_full_run_gives(files):
    """Rows that move from one group to another included: `latest` knows their former images."""
    query = "SELECT g, sum(v)::BIGINT AS total, count(*) AS n FROM previous GROUP BY g"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = hr.FileSource(
            path="*.csv",
            base=folder,
            latest=hr.Latest(keys=("id",)),
            types={"id": "int64", "g": "string", "v": "int64"},
        )

        def pipeline(name, write):
            destination = hr.DuckDBDestination(path=str(folder / "w.duckdb"), table=name)
            contract = hr.Contract(columns={"total": hr.Column(min=0)}, on_violation="quarantine")
            return hr.Pipeline(
                name=name,
                source=source,
                transforms=(hr.sql(query),),
                contract=contract,
                destination=destination,
                write=write,
            )

        bit_by_bit = pipeline("bits", hr.Recompute(by=("g",)))
        for n, rows in enumerate(files):
            lines = "".join(f"{i},{g},{v}\n" for i, g, v in rows)
            (folder / f"{n}.csv").write_text(f"id,g,v\n{lines}")
            hr.run(bit_by_bit)
        whole = pipeline("whole", hr.Replace(allow_empty=True))
        hr.run(whole)
        both = [p.destination.inspect(p.name).scan().collect().sort("g") for p in (bit_by_bit, whole)]
        rejects = [sorted(hr.rejects(p)["row"].to_list()) for p in (bit_by_bit, whole)]
    assert both[0].equals(both[1])
    assert rejects[0] == rejects[1]
