"""Folio's Grafana dashboards, as code; `python -m folio_dashboards` writes them as JSON."""
