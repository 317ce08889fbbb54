"""What is written of results: tables, overlays, reports, model cards."""
