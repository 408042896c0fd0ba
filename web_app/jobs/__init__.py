"""Jobs: the queue on the database, the loop that runs them with its heartbeat, the supervisor of the worker.

Beside analyses: clean copies, previews, close-ups, maintenance.
"""
