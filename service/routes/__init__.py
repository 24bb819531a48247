"""Routes, one file a noun. A route is parse → one call → render; whatever is longer lives in a module of its own."""
