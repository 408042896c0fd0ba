"""The web server: REST API, pages, and the worker that it keeps running."""
