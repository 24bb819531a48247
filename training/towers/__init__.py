"""Towers: torch modules shaped by data, and the packages they travel in. One file per architecture; `build` is the table."""
