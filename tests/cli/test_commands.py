import contextlib
import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import duckdb
import pytest

from headrace.cli import output

PATIENT = "import headrace.cli.signals as s, sys; s._GRACE = 10.0\nfrom headrace.cli import main; main(sys.argv[1:])"
"""The command, whose runs have time to end by themselves however busy the machine is."""


def rows(folder, table="orders"):
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()


def change(folder, file="orders.json", **keys):
    document = json.loads((folder / "orders.json").read_text())
    (folder / file).write_text(json.dumps({**document, **keys}))


def test_run_loads_and_says_so_and_the_second_time_nothing_is_new(headrace, orders):
    first = headrace("run", "orders.json")
    assert first.code == 0
    assert "orders: loaded into duckdb" in first.out
    assert rows(orders) == [(1, 10, 20), (2, 20, 40)]
    second = headrace("run", "orders.json")
    assert (second.code, "orders: nothing new" in second.out) == (0, True)


def test_json_is_one_document_on_stdout_whatever_a_transform_prints(headrace, orders):
    done = headrace("run", "orders.json", "--json")
    (run,) = done.json["runs"]
    assert (run["pipeline"], run["status"], run["counts"]["rows"]) == ("orders", "loaded", 2)
    assert "called" in done.err


@pytest.mark.parametrize(
    ("command", "key"),
    [("plan", "plans"), ("check", "checks"), ("preview", "rows"), ("history", "history"), ("rejects", "rejects")],
)
def test_every_command_has_a_json_document(headrace, orders, command, key):
    assert key in headrace(command, "orders.json", "--json").json
    assert not (orders / "w.duckdb").exists(), "they write nothing"


def test_schema_and_completion_have_one_too(headrace):
    assert headrace("schema", "--json").json == json.loads(headrace("schema").out)
    assert "complete" in headrace("completion", "bash", "--json").json["script"]


def test_rejects_are_shown_exported_mended_and_replayed(headrace, orders):
    headrace("run", "orders.json")
    shown = headrace("rejects", "orders.json")
    assert "value: min" in shown.out
    assert "1 rejected rows" in shown.out
    assert headrace("rejects", "orders.json", "--export", "bad.csv").code == 0
    with (orders / "bad.csv").open() as file:
        (bad,) = csv.DictReader(file)
    assert (bad["id"] != "", bad["value"]) == (True, "-5")
    (orders / "fixed.csv").write_text((orders / "bad.csv").read_text().replace("-5", "5"))
    done = headrace("replay", "orders.json", "--from", "fixed.csv", "--json")
    assert (done.code, done.json["runs"][0]["counts"]["rows"]) == (0, 1)
    assert (3, 5) in [row[:2] for row in rows(orders)]
    assert "no rejected rows" in headrace("rejects", "orders.json").out


def test_rejects_are_not_exported_where_nothing_can_be_written(headrace, orders):
    headrace("run", "orders.json")
    refused = headrace("rejects", "orders.json", "--export", "no/folder.csv", "--json")
    assert (refused.code, refused.json["error"]["type"]) == (1, "RejectedError")


def test_a_python_file_that_ends_itself_is_a_config_error(headrace, orders):
    (orders / "ends.py").write_text("import sys\nsys.exit(0)\n")
    ended = headrace("check", "ends.py:pipeline", "--json")
    assert (ended.code, ended.json["error"]["message"]) == (2, "ends.py:2 fails when it is imported (SystemExit)")


def test_a_profile_is_refused_for_a_pipeline_in_python_where_it_is_said(headrace, orders):
    (orders / "pipe.py").write_text("import headrace as hr\npipeline = hr.load('orders.json')\n")
    run = headrace("run", "pipe.py:pipeline", "--profile", "dev", "--json")
    assert (run.code, run.json["error"]["message"].split(":")[0]) == (2, "profile 'dev'")
    assert not (orders / "w.duckdb").exists()
    assert headrace("check", "pipe.py:pipeline", HEADRACE_PROFILE="").code == 0


@pytest.mark.parametrize(
    "body",
    ["sys.exit(0)", "return orders.map_batches(lambda rows: sys.exit(0), schema=orders.collect_schema())"],
    ids=["at once", "lazily"],
)
def test_a_transform_that_ends_the_process_has_failed(headrace, orders, body):
    (orders / "transforms.py").write_text(f"import sys\ndef clean(orders):\n    {body}\n")
    run = headrace("run", "orders.json", "--json")
    error = run.json["runs"][0]["error"]
    assert (run.code, error["type"]) == (1, "TransformError")
    assert error["message"] == f"transform 'clean' failed at {orders / 'transforms.py'}:3"
    assert "SystemExit" in error["hint"]
    assert headrace("history", "orders.json", "--json").json["history"][0]["status"] == "failed"
    for command in ("preview", "run"):
        said = headrace(command, "orders.json")
        assert (said.code, said.out.strip(), said.err.count("transform 'clean' failed")) == (1, "", 1), command


def test_a_transform_that_ends_over_frames_without_rows_alone_is_loaded(headrace, orders):
    """headrace calls it over frames of no file, to see what it does: nothing is proven then."""
    (orders / "transforms.py").write_text(
        "import sys\ndef clean(orders):\n    try: orders.collect()\n    except Exception: sys.exit(0)\n"
        "    return orders\n"
    )
    run = headrace("run", "orders.json", "--json")
    assert (run.code, run.json["runs"][0]["status"]) == (0, "loaded")


def test_a_replay_that_changes_nothing_makes_no_commit_and_says_so(headrace, orders):
    headrace("run", "orders.json")
    (before,) = headrace("rejects", "orders.json", "--json").json["rejects"]
    assert before["row"] == {"id": "3", "value": "-5", "gross": "-10"}
    done = headrace("replay", "orders.json")
    assert (done.code, "orders: nothing new" in done.out) == (0, True)
    assert "nothing was changed, all 1 are rejected again as they were: mend them" in done.out
    assert headrace("rejects", "orders.json", "--json").json["rejects"] == [before]
    kinds = [one["kind"] for one in headrace("history", "orders.json", "--json").json["history"]]
    assert sorted(kinds) == ["commit", "run", "run"]


def test_rejects_can_be_given_up_with_a_reason_that_is_kept(headrace, orders):
    headrace("run", "orders.json")
    assert headrace("replay", "orders.json", "--discard").code == 2
    given_up = headrace("replay", "orders.json", "--discard", "--reason", "tests", "--json")
    assert (given_up.code, given_up.json["runs"][0]["counts"]["discarded"]) == (0, 1)
    assert "no rejected rows" in headrace("rejects", "orders.json").out
    assert "tests" in headrace("history", "orders.json").out


def test_a_config_error_is_two_with_a_line_and_a_hint(headrace, orders):
    change(orders, wirte="append")
    done = headrace("run", "orders.json")
    assert (done.code, done.out) == (2, "")
    assert "orders.json:1:" in done.err
    assert 'hint: did you mean "write"?' in done.err
    document = headrace("run", "orders.json", "--json").json
    assert document["runs"] == []
    assert document["error"]["details"]["errors"][0]["path"] == "wirte"


def test_wrong_usage_is_two_and_a_document_with_json(headrace):
    assert headrace("run").code == 2
    done = headrace("run", "--json", "--no-such-option", "x")
    assert (done.code, done.json["error"]["type"]) == (2, "UsageError")


def test_a_broken_contract_is_three_and_never_shows_a_value(headrace, orders):
    change(orders, contract={"columns": {"value": {"min": 0}}})
    done = headrace("run", "orders.json")
    assert done.code == 3
    assert "error: orders: 1 of 3 rows break the contract" in done.err
    assert "-5" not in re.sub(r"run \S+", "", done.err)  # its random id may have it
    (failed,) = headrace("run", "orders.json", "--json").json["runs"]
    assert (failed["status"], failed["target"]) == ("failed", "duckdb w.duckdb orders")
    assert failed["started"].startswith("20")


def test_a_broken_contract_says_where_the_rows_stand_and_where_nobody_knows_says_that(headrace, orders):
    contract = {"columns": {"value": {"min": 0}}}
    change(orders, contract=contract)
    assert "transforms keep no file and line, a contract on the source tells them" in headrace("run", "orders.json").err
    change(orders, "plain.json", name="plain", transforms=[], params={}, contract=contract)
    assert "(first at orders.csv:4)" in headrace("run", "plain.json").err
    change(
        orders, "kept.json", name="kept", transforms=[], params={}, contract={**contract, "on_violation": "quarantine"}
    )
    assert headrace("run", "kept.json").code == 0
    (reject,) = headrace("rejects", "kept.json", "--json").json["rejects"]
    assert (reject["file"], reject["line"]) == ("orders.csv", 4)
    assert "nothing was changed" in headrace("replay", "kept.json").out
    assert headrace("rejects", "kept.json", "--json").json["rejects"] == [reject]


def test_a_failed_run_tells_the_commits_that_it_made(headrace, orders):
    (orders / "orders_2.csv").write_text("id,value\n4,-1\n")
    change(
        orders, transforms=[], params={}, contract={"columns": {"value": {"min": -5}}, "max_rows": 3}, commit_every=1
    )
    assert headrace("run", "orders.json").code == 0
    (orders / "orders_3.csv").write_text("id,value\n5,1\n")
    (orders / "orders_4.csv").write_text("id,value\n6,-9\n")
    (failed,) = headrace("run", "orders.json", "--json").json["runs"]
    assert (failed["status"], failed["counts"]["rows"], len(failed["commits"])) == ("failed", 1, 1)


def test_a_failing_transform_is_one_and_names_its_line(headrace, orders):
    (orders / "transforms.py").write_text("def clean(orders, *, factor):\n    raise ValueError('hunter2')\n")
    done = headrace("run", "orders.json")
    assert done.code == 1
    assert "transforms.py:2" in done.err
    assert "hunter2" not in done.err


def test_set_and_profile_change_the_config(headrace, orders):
    (orders / "headrace.json").write_text('{"profiles": {"dev": {"destination.table": "dev_orders"}}}')
    assert headrace("run", "orders.json", "--profile", "dev", "--set", "params.factor=3").code == 0
    assert rows(orders, "dev_orders") == [(1, 10, 30), (2, 20, 60)]
    again = headrace("run", "orders.json", HEADRACE_PROFILE="dev")
    assert "orders: nothing new for duckdb w.duckdb dev_orders\n" in again.out


def test_log_format_json_is_an_object_a_line_with_the_run_on_each(headrace, orders):
    change(orders, contract={"columns": {"value": {"min": 0}}})
    done = headrace("run", "orders.json", "--log-format", "json", "--json")
    lines = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert {line["run"] for line in lines} == {done.json["runs"][0]["run"]}
    (failed,) = [line for line in lines if "exception" in line]
    assert (failed["level"], failed["exception"]["type"]) == ("error", "ContractError")
    assert failed["exception"]["details"]["by_rule"] == {"value: min": 1}
    assert headrace("history", "nope.json", HEADRACE_LOG_FORMAT="json").err.startswith("{")


def test_quiet_says_nothing_but_errors(headrace, orders):
    (orders / "transforms.py").write_text("def clean(orders, *, factor):\n    return orders\n")
    done = headrace("run", "orders.json", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_a_folder_runs_in_order_and_its_code_is_the_first_failures(headrace, orders):
    change(
        orders,
        "daily.json",
        name="daily",
        sources={"o": {"type": "table", "of": "orders"}},
        transforms=[{"sql": "SELECT id, gross FROM o"}],
        contract=None,
        destination={"type": "duckdb", "path": "w.duckdb", "table": "daily"},
    )
    done = headrace("run", ".", "--json")
    assert [(run["pipeline"], run["status"]) for run in done.json["runs"]] == [
        ("orders", "loaded"),
        ("daily", "loaded"),
    ]
    assert rows(orders, "daily") == [(1, 20), (2, 40)]
    (orders / "orders_2.csv").write_text("id,value\n4,-1\n")
    change(orders, contract={"columns": {"value": {"min": 0}}})
    done = headrace("run", ".")
    assert done.code == 3
    assert "daily: skipped" in done.out
    assert "warning: orders failed" in done.out
    assert "error: orders: 1 of 1 rows break the contract" in done.err


def test_a_pipeline_in_python_runs_by_its_name(headrace, orders):
    (orders / "pipe.py").write_text(
        "import headrace as hr\n"
        "def double(previous):\n    import polars as pl\n    return previous.with_columns(gross=pl.col('value') * 2)\n"
        "pipeline = hr.Pipeline(name='py', source=hr.FileSource(path='orders.csv'), transforms=(double,),\n"
        "    destination=hr.DuckDBDestination(path='w.duckdb', table='orders'))\n"
    )
    assert headrace("run", "pipe.py:pipeline").code == 0
    assert len(rows(orders)) == 3


def test_preview_shows_the_rows_after_any_step(headrace, orders):
    shown = headrace("preview", "orders.json", "--step", "orders", "--limit", "1", "--json").json
    assert shown["rows"] == [{"id": 1, "value": 10}]
    done = headrace("preview", "orders.json", "--step", "claen")
    assert (done.code, "did you mean 'clean'?" in done.err) == (2, True)


def test_a_bug_is_one_says_so_and_shows_no_text_of_the_exception(headrace, orders):
    broken = (
        "import sys, headrace.engine as engine\n"
        "secret = 'hun' + 'ter2'\ndef run(*args, **kwargs): raise ZeroDivisionError(secret)\n"
        "engine.run = run\nfrom headrace.cli import main\nmain(sys.argv[1:])\n"
    )
    (orders / "broken.py").write_text(broken)

    def go(*args):
        return subprocess.run(
            [sys.executable, "broken.py", "run", "orders.json", *args],
            cwd=orders, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = go()
    assert done.returncode == 1
    assert "this is a bug in headrace: ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr
    verbose = go("-v")
    assert "in run" in verbose.stderr
    assert "hunter2" not in done.stderr + verbose.stderr
    assert json.loads(go("--json").stdout)["runs"][0]["error"]["type"] == "ZeroDivisionError"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("target", ["orders.json --log-format=json", "."])
def test_a_signal_ends_a_run_and_the_next_one_carries_on(headrace, orders, number, code, target):
    waits = "import sys, time\ndef clean(orders, *, factor):\n    sys.stdout.write('here\\n'); sys.stdout.flush()\n"
    waits += "    time.sleep(60)\n"
    works = (orders / "transforms.py").read_text()
    (orders / "transforms.py").write_text(waits)
    change(orders, "other.json", name="other", destination={"type": "parquet", "path": "o"}, write={"type": "append"})
    program = ["-c", PATIENT] if "json" in target else ["-m", "headrace"]
    with subprocess.Popen(
        [sys.executable, *program, "run", *target.split()],
        cwd=orders, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            for _ in range(min(2, os.cpu_count()) if target == "." else 1):
                line = process.stdout.readline()
                assert line == "here\n", process.stderr.read()
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert "interrupted" in err
    assert "Traceback" not in err
    if "json" in target:
        assert all(json.loads(line)["message"] for line in err.splitlines())
    kept = [headrace("history", file, "--json").json["history"] for file in ("orders.json", "other.json")]
    ends = [(one["kind"], one["status"], one["error"]["message"]) for history in kept for one in history]
    assert set(ends) == {("run", "failed", "interrupted")}, "whoever had begun has it on record, in whatever thread"
    (orders / "transforms.py").write_text(works)
    assert headrace("run", "orders.json").code == 0
    assert len(rows(orders)) == 2


def test_a_signal_within_duckdb_is_no_error_of_headrace(orders):
    long = "SELECT orders.* FROM orders, range(100000) a, range(100000) b, range(100000) c WHERE a.range + b.range < -1"
    change(orders, transforms=[{"sql": long}], params={})
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "run", "orders.json"], cwd=orders, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert "started" in process.stderr.readline()
            time.sleep(2)  # into the query; were it not there yet, the signal ends the run all the same
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (
        130,
        "interrupted: what was committed stays, the next run goes on from there\n",
    )


def test_a_reader_that_goes_away_is_no_error(orders):
    command = f"{sys.executable} -m headrace schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=orders, capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_a_terminal_gets_a_line_that_is_repainted_and_no_log_lines(orders):
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "run", "orders.json"],
        cwd=orders, stdout=subprocess.PIPE, stderr=follower, check=True,
    )  # fmt: skip
    os.close(follower)
    said = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "\r\x1b[Korders · " in said
    assert said.endswith("\r\x1b[K")
    assert "info" not in said
    assert b"orders: loaded" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_commands(headrace, shell):
    assert "_HEADRACE_COMPLETE" in headrace("completion", shell).out
    words = {"COMP_WORDS": "headrace re", "COMP_CWORD": "1"} | ({"COMP_CWORD": "re"} if shell == "fish" else {})
    said = headrace(_HEADRACE_COMPLETE=f"{shell}_complete", **words).out
    assert "rejects" in said
    assert "replay" in said


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5h", 5400), ("10m", 600), ("250ms", 0.25), ("2 d", 172800)]
)
def test_durations_are_read_in_their_units(text, seconds):
    from headrace.cli.options import Duration

    assert Duration().convert(text, None, None) == seconds


def test_a_duration_of_no_known_unit_is_refused(headrace):
    done = headrace("run", "x.json", "--wait", "10 minutes")
    assert (done.code, "5m" in done.err) == (2, True)


def test_a_type_that_is_set_alone_says_how_to_set_all_of_it(headrace, orders):
    done = headrace("check", "orders.json", "--set", "write.type=append")
    assert "write.keys: unknown key" in done.err
    assert """hint: --set 'write={"type": "append"}' replaces all of it""" in done.err
    assert headrace("check", "orders.json", "--set", 'write={"type": "append"}').code == 0


def test_the_summary_of_each_command_is_told_whole(headrace):
    assert "..." not in headrace("--help").out.partition("Commands:")[2]


def test_a_name_that_would_steer_a_terminal_is_shown_with_escapes_and_on_one_line(headrace, orders):
    """A file's name may hold anything: colours, lines, another direction."""
    name = "orders\x1b[31m\n\u202e.csv"
    (orders / name).write_text("id,value\n9\n")
    change(orders, contract={"on_violation": "fail"})
    failed = headrace("run", "orders.json", "-q")
    assert failed.code == 3
    assert r"orders\u001b[31m\n\u202e.csv:2 " in failed.err
    assert failed.err.count("\n") == 2


@pytest.mark.parametrize(("signals", "code"), [((signal.SIGINT,), 130), ((signal.SIGTERM,), 143), ((), 1)])
def test_a_signal_of_which_polars_makes_a_panic_is_a_signal_still(signals, code):
    """And a panic without one is not hidden."""
    text = f"""if True:
        import os, time, headrace.cli as cli
        from polars.exceptions import PanicException

        def panicking(args):
            try:
                for one in {[int(one) for one in signals]}:
                    os.kill(os.getpid(), one)
                    time.sleep(5)
            except KeyboardInterrupt:
                pass
            raise PanicException

        cli._code = panicking
        cli.main([])"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, code == 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_a_module_to_be_imported(tmp_path, number, code):
    """DuckDB's aborts the whole process when it is broken off while it makes its classes."""
    (tmp_path / "slow.py").write_text(
        f"import os\nos.kill(os.getpid(), {int(number)})\n{{}}.get('another instruction')\n"
    )
    text = f"""if True:
        import sys, time, headrace.cli as cli
        sys.path.insert(0, {str(tmp_path)!r})

        def importing(args):
            import slow
            print("imported", flush=True)
            time.sleep(5)

        cli._code = importing
        cli.main([])"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (code, "imported\n", False)


def test_what_an_engine_prints_by_itself_is_shown_with_v_only(headrace, orders):
    """Polars prints its panics, which may hold a cell's value; and a log of JSON has no other lines."""
    (orders / "transforms.py").write_text(
        "import os, sys\ndef clean(orders, *, factor):\n    print('from Python', file=sys.stderr)\n"
        "    os.write(2, b'from an engine\\n')\n    return orders\n"
    )
    change(orders, destination={"type": "parquet", "path": "o"}, write={"type": "replace"})
    done, told = headrace("run", "orders.json"), headrace("run", "orders.json", "-v")
    assert ("from Python" in done.err, "from an engine" in done.err) == (True, False)
    assert ("from Python" in told.err, "from an engine" in told.err) == (True, True)


def test_what_takes_the_whole_process_down_is_not_hidden(orders):
    (orders / "transforms.py").write_text("import os\ndef clean(orders, *, factor):\n    os.abort()\n")
    command = [sys.executable, "-m", "headrace", "run", "orders.json"]
    done = subprocess.run(command, cwd=orders, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert "transforms.py" in done.stderr


def test_without_a_stderr_the_command_runs(orders):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m headrace run orders.json --json 2>&-"],
        cwd=orders, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["runs"][0]["status"] == "loaded"


def test_a_name_without_end_is_told_by_its_ends(headrace, orders):
    change(orders, source={"type": "files", "path": "orders*.csv", "types": {"a" * 9_000 + "z": "int64"}})
    document = json.loads((orders / "orders.json").read_text())
    del document["sources"]
    (orders / "orders.json").write_text(json.dumps(document))
    done = headrace("run", "orders.json", "--json")
    plain = headrace("run", "orders.json")
    assert "z" in plain.err
    assert max(len(line) for line in plain.err.splitlines()) < 2_000
    assert "a" * 9_000 + "z" in done.out, "a document keeps all of it"
    assert len(output._line("\x1b" * 1_400)) < 2_000, "of what is shown, not of what it stands for"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_reader_of_stderr_that_has_stopped_keeps_nobody_from_ending(number, code):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4_096))
    os.set_blocking(writer, True)
    text = """if True:
        import time, headrace.cli as cli
        cli._code = lambda args: (print("here", flush=True), time.sleep(60))
        cli.main([])"""
    command = [sys.executable, "-c", text]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer, text=True) as process:
            try:
                assert process.stdout.readline() == "here\n"
                process.send_signal(number)
                assert process.wait(timeout=30) == code
            finally:
                process.kill()
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    "given",
    [
        (
            "class Tee:\n    def write(self, text): pass\n    def flush(self): pass\n"
            "    def isatty(self): return False\nsys.stderr = Tee()"
        ),
        "import codecs; sys.stderr = codecs.getwriter('utf-8')(sys.stderr.buffer)",
    ],
)
def test_a_stderr_of_somebody_elses_making_is_left_as_it_is(given, orders):
    text = f"import sys\n{given}\ngiven = sys.stderr\nfrom headrace.cli import main, stderr\nstderr.take()\n"
    text += "assert sys.stderr is given\nmain(['run', 'orders.json', '--json'])"
    done = subprocess.run([sys.executable, "-c", text], cwd=orders, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["runs"][0]["status"] == "loaded"


def test_without_a_stderr_no_file_of_the_run_becomes_descriptor_2(orders):
    asks = "    assert os.readlink('/proc/self/fd/2') == '/dev/null'\n"
    (orders / "transforms.py").write_text(f"import os\ndef clean(orders, *, factor):\n{asks}    return orders\n")
    command = ["bash", "-c", f"{sys.executable} -m headrace run orders.json --json 0<&- 2>&-"]
    done = subprocess.run(command, cwd=orders, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["runs"][0]["error"] is None
