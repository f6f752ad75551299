"""A process that has imported what the command imports, and forks itself for each command that it is sent: to start
Python with Polars and DuckDB costs most of a second of CPU, a fork a fiftieth of that.

A line of JSON comes in, ``{"args", "cwd", "env", "out", "err"}``; the exit code goes out when the command has ended.
"""

import gc
import json
import os
import sys
from importlib import import_module

from headrace.cli import command, main

# Used by nobody before the fork: an engine whose threads work cannot be forked.
HEAVY = ("polars", "duckdb", "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet")
OURS = ("config.loading", "engine", "systems.duckdb", "systems.files", "systems.table")
BEFORE = set(os.environ)


def become(asked):
    """The command's process: its folder, environment, files."""
    os.chdir(asked["cwd"])
    for name in BEFORE - set(asked["env"]):
        del os.environ[name]
    os.environ.update(asked["env"])
    for descriptor, file in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv[1:] = asked["args"]


def serve():
    """Until nobody asks any more. Returns in the child: it ends as a process does, at the end of its program."""
    command()
    for name in (*HEAVY, *(f"headrace.{one}" for one in OURS)):
        import_module(name)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(json.loads(line))
            main()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
