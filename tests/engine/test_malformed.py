"""Malformed input of every kind, through the command: what is said, the exit code, and the target unchanged."""

from __future__ import annotations

import gzip
import json

import duckdb
import pytest

import headrace as hr

GOOD = "id,v,d\n1,a,1.25\n2,b,2.50\n"
CONFIG = {
    "name": "orders",
    "source": {"type": "files", "path": "in/*.csv", "types": {"id": "int64", "d": "decimal(12,2)"}},
    "destination": {"type": "duckdb", "path": "w.duckdb", "table": "orders"},
    "write": "append",
}
KINDS = {
    "too few fields": b"3,c\n",
    "too many fields": b"3,c,3.00,x\n",
    "a trailing delimiter": b"3,c,3.00,\n",
    "not a number": b"three,c,3.00\n",
    "a third decimal": b"3,c,3.001\n",
    "beyond the range": b"9223372036854775808,c,3.00\n",
    "text after a quote": b'3,"c"x,3.00\n',
    "a quote that never closes": b'3,"c,3.00\n',
    "a wrong encoding": b"3,\xff\xfe,3.00\n",
}


@pytest.fixture
def loaded(place, command):
    place.write("1.csv", GOOD)
    config = place.folder / "orders.json"
    config.write_text(json.dumps(CONFIG))
    assert command("run", config)[0] == 0
    return config


def table(place):
    with duckdb.connect(place.folder / "w.duckdb", read_only=True) as con:
        return con.execute("SELECT id, v FROM orders ORDER BY id").fetchall()


@pytest.mark.parametrize("kind", KINDS)
def test_a_malformed_line_is_named_and_nothing_changes(place, command, loaded, kind):
    (place.folder / "in" / "2.csv").write_bytes(b"id,v,d\n7,g,7.00\n" + KINDS[kind] + b"8,h,8.00\n")
    code, _, err = command("run", loaded)
    assert code == 3
    assert "2.csv:3" in err
    assert "hint:" in err
    assert "Traceback" not in err
    assert table(place) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("kind", KINDS)
def test_in_quarantine_it_is_kept_and_the_others_are_loaded(place, command, loaded, kind):
    (place.folder / "in" / "2.csv").write_bytes(b"id,v,d\n7,g,7.00\n" + KINDS[kind] + b"8,h,8.00\n")
    loaded.write_text(json.dumps({**CONFIG, "contract": {"on_violation": "quarantine"}}))
    assert command("run", loaded)[0] == 0
    assert table(place) == [(1, "a"), (2, "b"), (7, "g"), (8, "h")]
    code, out, _ = command("rejects", loaded, "--json")
    (reject,) = json.loads(out)["rejects"]
    assert (code, reject["stage"], reject["file"], reject["line"]) == (0, "parse", "2.csv", 3)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("2.csv", b"id,id,d\n3,c,3\n", "2.csv"),
        ("2.csv.gz", gzip.compress(GOOD.encode() * 50, mtime=0)[:-20], "2.csv.gz"),
    ],
)
def test_a_file_that_is_broken_as_a_whole_is_named(place, command, loaded, name, content, says):
    (place.folder / "in" / name).write_bytes(content)
    loaded.write_text(json.dumps({**CONFIG, "source": {**CONFIG["source"], "path": "in/*.csv*"}, "was": "source"}))
    code, _, err = command("run", loaded)
    assert code in (2, 3)
    assert says in err
    assert "Traceback" not in err
    assert table(place) == [(1, "a"), (2, "b")]


def test_a_config_that_is_wrong_says_where_and_what_was_meant(place, command, loaded):
    loaded.write_text('{\n  "name": "orders",\n  "sorce": {}\n}')
    code, _, err = command("run", loaded)
    assert code == 2
    assert "orders.json:3:3" in err
    assert "source" in err


def test_lines_of_another_encoding_are_told_with_the_setting_for_it(place):
    place.write("x.csv", "id,name\n").write_bytes("id,name\n1,x\n2,Z\u00fcrich\n".encode("latin-1"))
    with pytest.raises(hr.ContractError) as told:
        hr.run(place.pipeline())
    assert '"encoding"' in told.value.hint


def test_a_type_that_an_earlier_run_inferred_is_told_with_a_way_that_works(place):
    place.write("a.csv", "id,zip\n1,53111\n")
    hr.run(place.pipeline())
    place.write("b.csv", "id,zip\n2,SW1A\n")
    with pytest.raises(hr.ContractError, match="--full-refresh"):
        hr.run(place.pipeline(files={"infer": "all"}))
    declared = place.pipeline(files={"types": {"zip": "string"}})
    with pytest.raises(hr.SchemaError) as told:
        hr.run(declared)
    assert "--full-refresh" in told.value.hint
    assert hr.run(declared, full_refresh=True).counts["inserted"] == 2
