"""The Hugging Face Hub: its client with retries, its errors in one line, what is fetched.

Start reading at repository.py, one repository at one commit; base.py, dataset.py and
dataset_splits.py say which files of it are wanted.
"""
