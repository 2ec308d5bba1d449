"""An open workspace: store, catalog, models, the runner of stages, progress.

Start reading at workspace.py, then stage.py: how a stage is found again, run and recorded.
resolved.py is a workspace whose dataset versions are known; kept.py opens one without its spec.
"""
