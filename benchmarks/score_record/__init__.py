"""The score record: every number that the version in use gives for free files, to see that a change moved none."""
