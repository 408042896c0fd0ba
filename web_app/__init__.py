"""The web server: REST API, pages, and the worker that it keeps running."""

VERSION = "0.1.0"
"""Telltale's own version; pyproject.toml says the same, which a test checks."""
