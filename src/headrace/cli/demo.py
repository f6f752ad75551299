"""`headrace demo` and `headrace init`: projects laid out in a folder for a person to read, run and edit."""

from __future__ import annotations

import gzip
import shutil
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.commands import cli, reported
from headrace.cli.options import Answer, Common, common
from headrace.errors import ConfigError, RejectedError

if TYPE_CHECKING:
    from headrace.report import RunReport

__all__ = ["demo", "init"]

_FIRST = ("flights_2013-01", "flights_2013-02")
_LATER = ("flights_2013-03",)
_LOOKUPS = ("airports", "airlines", "planes", "weather")

_QUERIES = """\
Try next, in {dir}:
  headrace plan .                        what a run would do now: nothing is new
  headrace run .                         does just that
  headrace history daily_delay.json      commits and runs
  headrace rejects daily_delay.json --export bad.csv
  headrace preview daily_delay.json --step clean

and over the warehouse, with DuckDB or from Python:
  import duckdb
  con = duckdb.connect("{dir}/warehouse.duckdb", read_only=True)
  con.sql("SELECT airport, sum(flights), round(avg(mean_delay), 1) FROM daily_delay GROUP BY ALL").show()
  con.sql("SELECT * FROM carriers ORDER BY flights DESC").show()

  import headrace as hr
  hr.scan_table("{dir}/lake/weather").filter(origin="JFK").collect()"""


@cli.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("headrace-demo"),
    show_default=True,
    help="Where to lay the project out; an empty or a new folder.",
)
@common({"runs": []})
def demo(options: Common, *, folder: Path) -> Answer:
    """Load real flights, and what comes later.

    Lay out a small project over them, load it, load what is new, and show what was rejected.
    """
    _new_folder(folder)
    _lay_out(folder)
    _say(options, f"Flights from New York, January and February 2013, are in {folder}/data/flights.\n$ headrace run .")
    first = _run_project(folder, options)
    _data(folder, _LATER, "flights")
    _corrections(folder)
    _say(
        options,
        "\nMarch arrives, and a file of corrections: flights of January with another delay, a line that was cut short,"
        "\na delay that is no number, a quote that never closes, a flight that left a day early, an unknown airport."
        "\n$ headrace run .",
    )
    second = _run_project(folder, options)
    _say(options, "\n$ headrace rejects daily_delay.json")
    rejected = _rejects(folder)
    from headrace.cli.tables import rejects_json, rejects_text

    if not options.json:
        _say(options, rejects_text(rejected))
    reports = [*first, *second]
    failed = [report for report in reports if report.error is not None]
    return Answer(
        document={"dir": str(folder), "runs": [r.to_dict() for r in reports], "rejects": rejects_json(rejected)},
        text="\n" + _QUERIES.format(dir=folder),
        exit_code=int(failed[0].error["exit_code"]) if failed and failed[0].error else 0,
        errors=tuple(dict(report.error) for report in failed if report.error),
    )


def _say(options: Common, text: str) -> None:
    if not options.json and options.verbosity >= 0:
        click.echo(text)


def _new_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise RejectedError(
            f"{folder} cannot be made ({type(error).__name__})", hint="choose another folder"
        ) from error
    if taken:
        raise ConfigError(f"{folder} is not empty", hint="name another folder, or remove it first")


def _resource(*parts: str) -> Traversable:
    return files("headrace").joinpath("demo", *parts)


def _lay_out(folder: Path) -> None:
    for file in _resource("project").iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    _data(folder, _FIRST, "flights")
    _data(folder, _LOOKUPS)


def _data(folder: Path, names: tuple[str, ...], *below: str) -> None:
    place = folder.joinpath("data", *below)
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        with _resource("data", f"{name}.csv.gz").open("rb") as packed, gzip.open(packed) as text:
            file = place / f"{name.removeprefix('flights_')}.csv"
            with file.open("wb") as out:
                shutil.copyfileobj(text, out)


def _corrections(folder: Path) -> None:
    """The corrections come after the months in file order, so that they are the latest."""
    _data(folder, ("corrections",), "flights")


def _run_project(folder: Path, options: Common) -> list[RunReport]:
    from headrace import engine
    from headrace.config import load_all
    from headrace.project import Project

    def one(pipeline: Any) -> RunReport:
        return reported(pipeline, lambda watching: engine.run(pipeline, observers=watching), options)

    reports = Project.of(load_all([str(folder)])).run(one)
    for report in reports:
        _say(options, str(report))
    return reports


def _rejects(folder: Path) -> Any:
    from headrace import engine
    from headrace.config import load

    return engine.rejects(load(folder / "daily_delay.json"))


_PIPELINE = """\
// A pipeline: what it reads, how the rows become the result, what they must be, and where they go.
{
  "name": "orders",
  "source": {"type": "files", "path": "data/orders_*.csv"},
  "transforms": [{"python": "transforms.py:clean"}],
  "contract": {
    "columns": {"id": {"type": "int64", "nullable": false}, "value": {"type": "decimal(12,2)", "min": 0}},
    "on_violation": "quarantine",
  },
  "destination": {"type": "duckdb", "path": "warehouse.duckdb", "table": "orders"},
  "write": {"type": "merge", "keys": ["id"], "latest_by": ["updated_at"]},
}
"""

_TRANSFORMS = '''\
"""Transforms: plain functions of lazy frames."""

import polars as pl


def clean(orders: pl.LazyFrame) -> pl.LazyFrame:
    """Orders that have a value."""
    return orders.filter(pl.col("value").is_not_null())
'''

_TEST = '''\
"""A transform is a function: a test calls it."""

import polars as pl
from transforms import clean


def test_orders_without_a_value_are_left_out() -> None:
    orders = pl.LazyFrame({"id": [1, 2], "value": [9.5, None]})
    assert clean(orders).collect()["id"].to_list() == [1]
'''

_ORDERS = """\
id,customer,value,updated_at
1,ada,19.90,2024-01-01T09:00:00Z
2,grace,5.00,2024-01-01T10:30:00Z
3,edsger,,2024-01-02T08:15:00Z
"""


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@common()
def init(_options: Common, *, folder: Path) -> Answer:
    """Make a small project in DIR.

    One pipeline, its transform, its test and three rows of data.
    """
    _new_folder(folder)
    laid = {
        "orders.json": _PIPELINE,
        "transforms.py": _TRANSFORMS,
        "test_transforms.py": _TEST,
        "data/orders_2024-01.csv": _ORDERS,
    }
    for name, text in laid.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
    listed = "\n".join(f"  {folder / name}" for name in laid)
    return Answer(
        document={"dir": str(folder), "files": list(laid)},
        text=f"Made\n{listed}\n\nNext:\n  cd {folder}\n  headrace plan orders.json\n  headrace run orders.json",
    )
