"""Many callers, one accelerator. In: items with deadlines. Out: each item's vector or its own error. Knows no HTTP."""
