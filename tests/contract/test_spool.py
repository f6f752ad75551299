import gc
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import duckdb
import polars as pl
import pytest

from headrace.errors import RejectedError
from headrace.stream.spilling import spilling
from headrace.stream.spool import Spool


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def frame(*numbers):
    return pl.DataFrame(
        {"n": numbers, "rules": [["a", "b"]] * len(numbers)}, schema={"n": pl.Int64, "rules": pl.List(pl.String)}
    )


def numbers(spool):
    return [n for f in spool.frames() for n in f["n"]]


def test_what_a_whole_pass_wrote_is_read_back():
    with Spool() as spool:
        with spool.passed() as one:
            one.write(frame(1, 2))
            one.write(frame())
            one.write(frame(3))
        assert spool.count == 3
        assert pl.concat(spool.frames()).equals(frame(1, 2, 3))
        assert numbers(spool) == [1, 2, 3]


def test_a_pass_that_broke_off_does_not_count(temp):
    with Spool() as spool:

        def break_off():
            with spool.passed() as one:
                one.write(frame(1))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            break_off()
        assert (spool.count, numbers(spool)) == (0, [])
        assert not list(temp.rglob("*.arrow"))


def test_a_generator_that_is_closed_early_does_not_count():
    with Spool() as spool:

        def rows():
            with spool.passed() as one:
                one.write(frame(1))
                yield 1
                yield 2

        reading = rows()
        next(reading)
        reading.close()
        assert (spool.count, numbers(spool)) == (0, [])


def test_of_several_passes_the_one_with_most_rows_counts(temp):
    with Spool() as spool:
        for rows in ([1], [1, 2, 3], [1, 2]):
            with spool.passed() as one:
                one.write(frame(*rows))
        assert numbers(spool) == [1, 2, 3]
        assert len(list(temp.rglob("*.arrow"))) == 1


def test_an_empty_pass_has_no_rows():
    with Spool() as spool:
        with spool.passed():
            pass
        assert (spool.count, numbers(spool)) == (0, [])


def test_nothing_is_left_after_close(temp):
    spool = Spool()
    with spool.passed() as one:
        one.write(frame(1))
    spool.close()
    spool.close()
    assert not list(temp.iterdir())
    with pytest.raises(RuntimeError, match="closed"):
        next(spool.frames())


def test_nothing_is_left_after_the_object(temp):
    spool = Spool()
    with spool.passed() as one:
        one.write(frame(1))
    del spool, one
    gc.collect()
    assert not list(temp.iterdir())


def test_a_spool_without_a_pass_makes_no_folder(temp):
    Spool().close()
    assert not list(temp.iterdir())


def test_passes_in_many_threads_do_not_mix():
    with Spool() as spool:

        def write(size):
            with spool.passed() as one:
                for _ in range(size):
                    one.write(frame(size))

        threads = [threading.Thread(target=write, args=(size,)) for size in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert numbers(spool) == [8] * 8


KILLED = """
import os, polars as pl
from headrace.stream.spool import Spool
spool = Spool()
with spool.passed() as one:
    one.write(pl.DataFrame({"n": [1]}))
print("written", flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_run_left_is_cleared_by_the_next_and_what_a_live_one_holds_is_not(temp):
    environment = {**os.environ, "TMPDIR": str(temp), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False, stdout=subprocess.DEVNULL)
    (left,) = temp.iterdir()
    stranger = temp / "headrace-spool-of-mine"
    stranger.mkdir()
    with Spool() as spool:
        with spool.passed() as one:
            one.write(frame(1))
        assert not left.exists()
        again = "from headrace.stream.spool import Spool\nwith Spool() as s, s.passed(): pass"
        subprocess.run([sys.executable, "-c", again], env=environment, check=True)
        assert numbers(spool) == [1]
    assert list(temp.iterdir()) == [stranger]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_without_the_drivers_words(temp):
    def fill(spool):
        with spool.passed() as one:
            one._path.symlink_to("/dev/full")
            one.write(frame(*range(100_000)))

    with Spool() as spool:
        with pytest.raises(RejectedError, match="disk is full") as caught:
            fill(spool)
        assert spool.count == 0
    assert "TMPDIR" in caught.value.hint


@pytest.mark.parametrize("error", [duckdb.OutOfMemoryException("x"), OSError("x")])
def test_what_has_no_room_to_spill_says_what_it_was_at(error):
    with pytest.raises(RejectedError, match="counting ran out of memory or of temporary disk"), spilling("counting"):
        raise error


def test_a_defect_is_not_told_as_a_lack_of_room():
    with pytest.raises(duckdb.ConversionException), spilling("counting") as con:
        con.execute("SELECT 'x'::INTEGER")
