"""Every reader of foreign bytes, fuzzed with repeatable mutations: shortly in the tests, for long by `make fuzz`."""
