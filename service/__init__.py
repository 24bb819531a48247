"""The HTTP face of bindery: parse → one call into the core → render. It may import `bindery`; nothing imports it."""
