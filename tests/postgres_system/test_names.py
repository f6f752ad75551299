"""Names of tables, without a server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.systems.postgres.names import dotted, named, spelled, words

parts = st.text('ab."*?[] é', min_size=1, max_size=6)


@given(parts, parts)
def test_a_name_in_the_one_spelling_is_read_as_what_it_was(schema, name):
    assert named(dotted(schema, name)) == (schema, name)
    assert spelled(dotted(schema, name)) == dotted(schema, name)


def test_a_table_called_by_a_star_is_not_all_tables():
    assert dotted("public", "*") == 'public."*"'
    assert dotted("public", "orders") == "public.orders"


def test_what_names_a_table_in_a_query_has_that_spelling():
    assert {dotted("a.b", "c"), dotted("public", "o")} <= set(words('SELECT * FROM "a.b"."c" JOIN o USING (id)'))
    assert dotted("a", "b.c") not in words('SELECT * FROM "a.b"."c"')
