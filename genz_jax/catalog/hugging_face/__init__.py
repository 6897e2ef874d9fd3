"""Hugging Face configs: files and hub ids as models with the formats of their checkpoints.

In: a path or id. Out: a model. What cannot be read exactly is refused by name and key.
"""
