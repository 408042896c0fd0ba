"""Jobs: the queue on the database, the worker that runs them, and the supervisor that keeps the worker alive."""
