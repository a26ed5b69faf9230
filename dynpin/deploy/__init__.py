"""The operator's side: linting, exporting, keys, rotation, and the guard before a deployment."""
