"""What a file says of itself, read from its metadata: credentials, statements, usual marks, traces of compression.

`reading` runs in the confined child and answers with short texts; `answer` checks them in the parent and makes the
sentences. Nothing here decodes a whole picture but `compression`, and nothing of it changes a verdict.
"""
