"""Projections of a finished run: tables, Markdown, HTML, terminal. None of them needs a plug-in."""
