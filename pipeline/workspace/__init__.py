"""An open workspace: store, catalog, models, the runner of stages, progress.

Start reading at workspace.py, then stage.py: how a stage is found again, run and recorded.
"""
