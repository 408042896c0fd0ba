"""Reports of finished analyses: one as JSON, HTML or PDF, many as CSV.

All four are made of `document.ReportDocument`, so that they cannot tell different stories.
"""
