"""The documents that are made from the code: types in, JSON Schemas, words and YAML out."""
