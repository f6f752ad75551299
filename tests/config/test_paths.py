"""What an empty path would be is the folder that paths are relative to, which nobody means."""

import pytest

import headrace as hr


@pytest.mark.parametrize(
    "made",
    [
        lambda: hr.FileSource(path=""),
        lambda: hr.SQLiteSource(path="", table="t"),
        lambda: hr.DuckDBSource(path="", table="t"),
        lambda: hr.DuckDBDestination(path="", table="t"),
        lambda: hr.ParquetDestination(path=""),
        lambda: hr.FileDestination(path="", format="csv"),
    ],
)
def test_an_empty_path_is_refused(made):
    with pytest.raises(hr.ConfigError, match=r"the path (of .* )?is empty"):
        made()
