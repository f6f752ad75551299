"""W6: 3 GB of CSV (at SF=1), a contract of ten rules with quarantine, DuckDB. The floor is W1's on the same file."""

from __future__ import annotations

from pathlib import Path

from workloads import w1_csv

MARK = 1.5
SCALE = 4
"""It takes the data of four times the scale factor."""

floor_duckdb = w1_csv.floor_duckdb


def headrace(data: Path, out: Path) -> None:
    """headrace, ten rules, some twenty rows in a million quarantined."""
    import headrace as hr

    contract = hr.Contract(
        columns={
            "l_orderkey": hr.Column(type="int64", nullable=False, min=1),
            "l_linenumber": hr.Column(nullable=False, min=1, max=7),
            "l_quantity": hr.Column(nullable=False, min=1, max=50),
            "l_extendedprice": hr.Column(nullable=False, max=104_900),
            "l_discount": hr.Column(min=0, max=0.1),
            "l_tax": hr.Column(min=0, max=0.08),
            "l_returnflag": hr.Column(one_of=("A", "N", "R")),
            "l_shipmode": hr.Column(one_of=("AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK")),
            "l_comment": hr.Column(length=(1, 44)),
        },
        rules={"received_after_shipped": "l_receiptdate >= l_shipdate"},
        on_violation="quarantine",
    )
    hr.run(
        hr.Pipeline(
            name="lineitem",
            source=hr.FileSource(path=str(data / w1_csv.FILE)),
            contract=contract,
            destination=hr.DuckDBDestination(path=str(out / "w.duckdb"), table="lineitem"),
        )
    )


RESULT = ("w.duckdb", "lineitem")
WHERE = "l_extendedprice <= 104900"
"""The quarantined rows are not in the table."""
