"""Learning from feedback: voices and their log, the quarantine, trainings, versions, and what is shown of them."""
