"""What a bundle, or a folder of tower packages, is worth: the paper's tables (section 5) on local copies, and data of one's own.

A benchmark is a TOML file (`training/recipes/benchmarks/`): which layout its files stand in, which figures are taken, what was published.
"""
