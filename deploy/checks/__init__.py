"""What the smoke check checks: one module a part of the API, and the standard-library client that they share."""
