"""The stages that act, one file a stage, thin over evals and registry; and the command line."""
