import ast
import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import headrace

HEAVY = ("polars", "duckdb", "pyarrow", "pandas")
UNUSED = (
    "pandas",
    "pyarrow.compute",
    *(f"headrace.contract.{n}" for n in ("verdict", "checks", "sqlrules", "repeats")),
    *(f"headrace.transform.{n}" for n in ("query", "syntax", "plan", "lineage_sql", "lineage_polars")),
    *(f"headrace.engine.{n}" for n in ("bundle", "planning", "quarantine")),
)
"""What a CSV file into a DuckDB table, without contract and transforms, has no use for."""


def heavy_modules(code):
    """The heavy modules that a fresh interpreter has loaded after the code."""
    then = f"print(); print([m for m in {HEAVY!r} if m in sys.modules])"
    listed = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\n{then}"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


def test_importing_headrace_imports_nothing_heavy():
    assert heavy_modules("import headrace") == []


@pytest.mark.parametrize("args", ["--help", "run --help", "schema", "completion bash", "run no.json"])
def test_what_reads_no_data_imports_nothing_heavy(args):
    assert heavy_modules(f"from headrace.cli import main; main({args.split()!r})") == []


def test_a_config_error_imports_nothing_heavy(tmp_path):
    for tag in ({"type": "duckdb", "path": "w", "table": "t"}, {"type": "parquet", "path": "lake"}):
        document = {"name": "p", "source": {"type": "files", "path": "x.csv"}, "destination": tag, "nmae": 1}
        (tmp_path / "p.json").write_text(json.dumps(document))
        args = ["run", str(tmp_path / "p.json")]
        assert heavy_modules(f"from headrace.cli import main; main({args!r})") == []


def test_only_the_systems_that_a_config_names_are_imported(tmp_path):
    document = {
        "name": "p",
        "source": {"type": "files", "path": "x.csv"},
        "destination": {"type": "duckdb", "path": "w", "table": "t"},
    }
    (tmp_path / "p.json").write_text(json.dumps(document))
    code = f"import sys, headrace; headrace.load({str(tmp_path / 'p.json')!r}); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "headrace.systems.files" in done.stdout
    assert "headrace.systems.parquet" not in done.stdout
    assert "'polars'" not in done.stdout


def test_a_run_imports_only_what_its_pipeline_uses(tmp_path):
    (tmp_path / "ten.csv").write_text("id,price,day\n1,1.25,2024-01-02\n")
    document = {
        "name": "ten",
        "source": {"type": "files", "path": "ten.csv"},
        "destination": {"type": "duckdb", "path": "w.duckdb", "table": "ten"},
    }
    (tmp_path / "ten.json").write_text(json.dumps(document))
    code = f"import sys, headrace as hr; hr.run(hr.load({str(tmp_path / 'ten.json')!r})); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(UNUSED) & set(ast.literal_eval(done.stdout)) == set()


def test_what_needs_no_sql_does_without_duckdb(tmp_path):
    code = f"""if True:
        import sys, polars as pl, headrace as hr
        pl.DataFrame({{"a": [1, 2]}}).write_parquet({str(tmp_path / "a.parquet")!r})
        source = hr.FileSource(path={str(tmp_path / "a.parquet")!r})
        target = hr.ParquetDestination(path={str(tmp_path / "lake")!r})
        steps = (lambda source: source.filter(a=1),)
        hr.run(hr.Pipeline(name="p", source=source, destination=target, transforms=steps))
        print("duckdb" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("name", headrace.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(headrace, name) is not None
    assert name in dir(headrace)


def test_the_exports_are_sorted_and_a_function_is_not_hidden_by_a_module_of_its_name():
    assert headrace.__all__ == sorted(headrace.__all__)
    for module in pkgutil.iter_modules(headrace.__path__):
        if module.name in headrace.__all__:
            import_module(f"headrace.{module.name}")
            assert callable(getattr(headrace, module.name))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Pipelin"):
        headrace.Pipelin  # noqa: B018


def test_the_version_is_that_of_the_package():
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'version = "{headrace.__version__}"' in project.read_text()
