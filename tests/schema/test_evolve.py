import pytest

from headrace.errors import SchemaError
from headrace.logical import parse_type
from headrace.schema import AddColumn, CreateTable, Field, Schema, SchemaPolicy, WidenColumn, evolve

TABLE = Schema.of({"id": "int32", "name": "string"})


def test_rows_without_a_table_create_it():
    assert evolve(None, TABLE, SchemaPolicy()) == (TABLE, (CreateTable(TABLE),))


def test_the_same_columns_in_another_order_are_no_change():
    rows = Schema.of({"name": "string", "id": "int32"})
    assert evolve(TABLE, rows, SchemaPolicy()) == (TABLE, ())


def test_a_new_column_is_added_at_the_end():
    rows = Schema.of({"new": "date", "id": "int32", "name": "string"})
    after, changes = evolve(TABLE, rows, SchemaPolicy())
    assert after.names == ("id", "name", "new")
    assert changes == (AddColumn(Field("new", parse_type("date"))),)


def test_a_type_that_grows_widens_in_its_place():
    after, changes = evolve(TABLE, Schema.of({"id": "int64", "name": "string"}), SchemaPolicy())
    assert after == Schema.of({"id": "int64", "name": "string"})
    assert changes == (WidenColumn("id", parse_type("int32"), parse_type("int64")),)


def test_a_narrower_type_of_the_rows_is_no_change():
    assert evolve(TABLE, Schema.of({"id": "int8", "name": "string"}), SchemaPolicy()) == (TABLE, ())


@pytest.mark.parametrize("type", ["string", "float32", "uint64", "date"])
def test_a_type_that_changes_is_refused_with_both_types(type):
    with pytest.raises(SchemaError) as caught:
        evolve(TABLE, Schema.of({"id": type, "name": "string"}), SchemaPolicy())
    assert "'id'" in caught.value.message
    assert type in caught.value.message
    assert "int32" in caught.value.message


def test_a_column_that_vanishes_is_refused_with_a_way_out():
    with pytest.raises(SchemaError, match="'name' of the table is missing") as caught:
        evolve(TABLE, Schema.of({"id": "int32"}), SchemaPolicy())
    assert "keep" in caught.value.hint


def test_a_column_that_looks_renamed_is_said_to():
    with pytest.raises(SchemaError) as caught:
        evolve(TABLE, Schema.of({"id": "int32", "names": "string"}), SchemaPolicy())
    assert '"rename": {"names": "name"}' in caught.value.hint


def test_a_vanished_column_is_kept_where_the_policy_says_so():
    after, changes = evolve(TABLE, Schema.of({"id": "int32"}), SchemaPolicy(missing="keep"))
    assert (after, changes) == (TABLE, ())


@pytest.mark.parametrize(
    ("rows", "policy"),
    [
        ({"id": "int32", "name": "string", "new": "date"}, SchemaPolicy(add="refuse")),
        ({"id": "int64", "name": "string"}, SchemaPolicy(widen="refuse")),
    ],
)
def test_what_the_policy_refuses_names_the_key_that_allows_it(rows, policy):
    with pytest.raises(SchemaError) as caught:
        evolve(TABLE, Schema.of(rows), policy)
    assert "on_schema_change" in caught.value.hint


def schema(**columns: tuple[str, str | None]) -> Schema:
    return Schema(tuple(Field(n, parse_type(t), origin) for n, (t, origin) in columns.items()))


DATE, TEXT = ("date", "postgres date"), ("string", "postgres date")


def test_rows_of_the_columns_own_origin_fit_it_where_the_destination_has_that_system() -> None:
    assert evolve(schema(day=DATE), schema(day=TEXT), SchemaPolicy(), native="postgres") == (schema(day=DATE), ())
    with pytest.raises(SchemaError, match="column 'day' is string"):
        evolve(schema(day=DATE), schema(day=TEXT), SchemaPolicy())


def test_another_origin_grows_the_column_where_the_destination_has_that_system() -> None:
    old, new = schema(name=("string", "postgres varchar(10)")), schema(name=("string", "postgres varchar(20)"))
    found, changes = evolve(old, new, SchemaPolicy(), native="postgres")
    assert found == new
    assert changes == (WidenColumn("name", parse_type("string"), parse_type("string"), "postgres varchar(20)"),)
    with pytest.raises(SchemaError, match="grows"):
        evolve(old, new, SchemaPolicy(widen="refuse"), native="postgres")


def test_elsewhere_a_column_of_two_origins_is_of_neither() -> None:
    old, new = schema(name=("string", "postgres varchar(10)")), schema(name=("string", "postgres varchar(20)"))
    assert evolve(old, new, SchemaPolicy()) == (schema(name=("string", None)), ())
    assert evolve(old, schema(name=("string", None)), SchemaPolicy()) == (old, ())


def test_origins_are_kept_in_json() -> None:
    told = schema(day=DATE, id=("int64", None))
    assert Schema.from_json(told.to_json()) == told
    assert told.to_json()[1] == {"name": "id", "type": "int64"}
