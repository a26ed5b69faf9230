"""The folder that `dynpin run` puts first on PYTHONPATH; Python runs its ``sitecustomize.py``."""
