"""Hugging Face configs: files and hub ids as models with the formats of their checkpoints.

In: a path or id. Out: a model. It never guesses: what cannot be read exactly is refused by name and key.
"""
