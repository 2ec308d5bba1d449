"""The preview of a run before its first step: preflight, estimate, dry run.

Start reading at look.py: preflight.py says what is wrong or odd, estimate.py what it will take;
dry_run.py shows three rows as they would be trained.
"""
