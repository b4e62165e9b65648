"""Talks to a Folio server."""
