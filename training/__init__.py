"""Media and captions → towers. Imports torch and `bindery`; never the service, never `export`."""
