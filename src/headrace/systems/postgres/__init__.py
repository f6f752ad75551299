"""PostgreSQL, both ways."""
