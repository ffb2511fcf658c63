"""From values to responses: templates, text formatting, charts, redaction, the page cache and error
pages.
"""
