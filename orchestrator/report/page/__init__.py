"""The answer of a sweep on one page: report.html, one file without network, script or style of elsewhere."""
