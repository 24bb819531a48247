"""An open-loop load generator: requests leave when they are due, whether or not earlier ones were answered."""
