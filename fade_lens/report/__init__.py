"""Showing results: plotly figures, one self-contained HTML page, and fragments for notebooks."""
