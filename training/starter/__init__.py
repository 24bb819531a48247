"""The starter model: weights from two published packages, recipes for the trainer, and the model card.

Nothing in the trainer knows of it. `python -m training.starter` runs the whole of it up to the tower packages.
"""
