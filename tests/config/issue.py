"""The two documents that must run as written, and the Python example's pipeline."""

DAILY_DELAY = """{
  "name": "daily_delay",
  "sources": {
    "flights": {"type": "files", "path": "data/flights/*.csv", "latest": {"keys": ["day", "carrier", "flight", "origin", "sched_dep"], "by": ["file", "line"]},
                "contract": {"columns": {"dep_delay": {"type": "float64", "min": -120}}, "on_violation": "quarantine"}},
    "airports": {"type": "files", "path": "data/airports.csv", "read": "all"}
  },
  "transforms": [
    {"python": "transforms.py:clean", "as": "clean"},
    {"sql_file": "daily_delay.sql"}
  ],
  "params": {"since": "2013-01-01"},
  "contract": {
    "columns": {"origin": {"type": "string", "nullable": false, "one_of": ["EWR", "JFK", "LGA"]}, "day": {"type": "date", "nullable": false}},
    "rules": {"has_flights": "flights > 0"},
    "on_violation": "quarantine", "max_reject_share": 0.05
  },
  "destination": {"type": "duckdb", "path": "warehouse.duckdb", "table": "daily_delay"},
  "write": {"type": "recompute", "by": ["origin", "carrier", "day"]}
}
"""  # noqa: E501

ORDERS = """{"name": "orders",
 "source": {"type": "files", "path": ["in/orders_*.csv"], "cursor": {"column": "updated_at", "start": "2024-01-01T00:00:00Z"},
            "types": {"day": {"type": "date", "format": "%d/%m/%Y"}, "active": {"type": "bool", "true": ["Y"], "false": ["N"]}, "zip": "string"},
            "skip_rows": 2, "skip_footer": 1, "settle": "5m", "add_columns": {"_file": "file", "_line": "line"}, "rename": {"cust_id": "customer_id"}},
 "destination": {"connection": "warehouse", "table": "orders"},
 "write": {"type": "merge", "keys": ["id"], "latest_by": ["updated_at"]},
 "on_schema_change": {"add": "evolve", "widen": "evolve", "missing": "refuse"}}
"""  # noqa: E501

SETTINGS = """{"connections": {"warehouse": {"type": "duckdb", "path": "w.duckdb"}},
 "profiles": {"dev": {"connections.warehouse.path": "dev.duckdb"}}}
"""


def lay(folder):
    """The folder with the issue's files; gives it."""
    (folder / "daily_delay.json").write_text(DAILY_DELAY)
    (folder / "orders.json").write_text(ORDERS)
    (folder / "headrace.json").write_text(SETTINGS)
    (folder / "transforms.py").write_text("def clean(flights):\n    return flights\n")
    (folder / "daily_delay.sql").write_text("SELECT * FROM clean\n")
    return folder
