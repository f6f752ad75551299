"""One place per system, both ways: source and destination. No system knows another."""
