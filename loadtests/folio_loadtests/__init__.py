"""A load test that tells the truth about a Folio server: Locust on `folio_client`. `main` is the command."""
